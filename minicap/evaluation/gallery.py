"""The images that a report shows: which ones, and where they come from."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from minicap.data.names import find_names
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import Scene, load_scenes
from minicap.encoder.image import load_image
from minicap.encoder.photos import PhotoSource, find_all
from minicap.evaluation.evaluation import Evaluation

Gallery = dict[str, Callable[[], Image.Image]]  # opening an image may raise UnusableImage


def read_scenes(captions: Sequence[Path], names: Sequence[str]) -> dict[str, Scene] | None:
    """Read what was drawn in each image from the scenes.jsonl.gz next to the first caption file.

    Returns:
        Image -> scene, or None if there is no such file or an image is not in it.
    """
    path = captions[0].with_name("scenes.jsonl.gz")
    scenes = load_scenes(path) if path.exists() else {}
    return {name: scenes[name] for name in names} if set(names) <= scenes.keys() else None


def gallery(
    names: Sequence[str],
    scenes: dict[str, Scene] | None,
    photos: Sequence[Path],
    training_photos: Sequence[str] | str | None,
) -> Gallery:
    """Find the images that can be shown: drawn scenes, or photos in folders, zip files or lists.

    Args:
        names: the images.
        scenes: image -> what was drawn in it, or None for photos.
        photos: where the user says the photos are; may be empty.
        training_photos: where they were during training, or None. Used without `photos`, if they
            are still there.

    Returns:
        Image -> a function that opens it, for those that were found.

    Raises:
        UserError: there is nothing at `photos`.
    """
    if scenes:
        return {name: partial(paint, scenes[name]) for name in names}
    if not photos:
        known = [training_photos] if isinstance(training_photos, str) else training_photos or []
        photos = [path for path in map(Path, known) if path.exists()]
    if not photos:
        return {}
    source = find_all(photos)
    found = find_names(names, source.names)
    return {name: partial(_open_photo, source, photo) for name, photo in found.items()}


def _open_photo(source: PhotoSource, name: str) -> Image.Image:
    """Open a photo by its name in the source."""
    return load_image(source.open(name))


def choose(evaluation: Evaluation, rows: Sequence[int], count: int) -> dict[str, list[int]]:
    """Choose images to show by CIDEr: the best third, some in between, and the worst third.

    Args:
        evaluation: has the CIDEr of each image.
        rows: the images to choose from.
        count: how many to choose; all of them if there are fewer.

    Returns:
        Title -> the rows to show under it.
    """
    cider = evaluation.evaluated.each["CIDEr"]
    ranked = sorted(rows, key=lambda row: -cider[row])
    if len(ranked) <= count:
        return {"All by CIDEr, best first": ranked}
    third = count // 3
    between, middle = ranked[third : len(ranked) - third], count - 2 * third
    spread = [between[(2 * k + 1) * len(between) // (2 * middle)] for k in range(middle)]
    chosen = {
        "Best by CIDEr": ranked[:third],
        "In between, best first": spread,
        "Worst by CIDEr": ranked[::-1][:third],
    }
    return {title: group for title, group in chosen.items() if group}
