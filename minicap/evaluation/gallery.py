"""EvaluationSet by name, whether they are photos or drawn, for pages that show some."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from minicap.data.captions import find_names
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import Scene, load_scenes
from minicap.encoder.image import load_image
from minicap.encoder.photos import PhotoSource, find_photos

Gallery = dict[str, Callable[[], Image.Image]]  # opening one may raise UnusableImage


def scenes_beside(captions: Path, names: Sequence[str]) -> dict[str, Scene] | None:
    """What was drawn in each of these pictures, if a scenes.jsonl.gz next to the caption file says
    so of all of them."""
    path = captions.with_name("scenes.jsonl.gz")
    scenes = load_scenes(path) if path.exists() else {}
    return {name: scenes[name] for name in names} if set(names) <= scenes.keys() else None


def gallery(
    names: Sequence[str], scenes: dict[str, Scene] | None, wanted: Path | None, known: str | None
) -> Gallery:
    """Those of the pictures that can be shown: scenes can; photos that are where `wanted` says, or
    else, if it is still there, `known`. UserError: nothing is where `wanted` says."""
    if scenes:
        return {name: partial(paint, scenes[name]) for name in names}
    source = wanted or (Path(known) if known and Path(known).exists() else None)
    if not source:
        return {}
    photos = find_photos(source)
    found = find_names(names, photos.names)
    return {name: partial(_photo, photos, there) for name, there in found.items()}


def _photo(photos: PhotoSource, name: str) -> Image.Image:
    return load_image(photos.open(name))
