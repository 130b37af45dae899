"""Captions of some images at the end of a run: lines to print, and entries for a picture."""

from minicap.data.captions import find_names
from minicap.data.dataset import Dataset, Split, shipped_scenes
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import load_scenes
from minicap.encoder.image import load_image
from minicap.encoder.photos import PhotoSource
from minicap.evaluation.plots import Entry
from minicap.evaluation.scene_truth import truth_and_baselines, truths
from minicap.generation.config import BEAM
from minicap.generation.generate import generate_text
from minicap.model.trained_model import Model
from minicap.utils.errors import UnusableImage

SHOWN = 12  # images


def sample_captions(
    model: Model, dataset: Dataset, drawn: bool, photos: PhotoSource | None, seed: int
) -> tuple[list[str], list[Entry]]:
    """Generate captions for images of the test split or, without one, of the dev split.

    Args:
        model: generates.
        dataset: the model's.
        drawn: the dataset is the shipped scenes.
        photos: where to find the dataset's photos, or None to show none.
        seed: of the shuffled baseline.

    Returns:
        Lines to print, and images with captions.
    """
    if drawn:
        return scene_samples(model, dataset, seed)
    return photo_samples(model, dataset, photos) if photos else ([], [])


def shown(dataset: Dataset) -> tuple[Split, list[int]]:
    """The split to show images of, and their rows."""
    split = dataset.splits.get("test", dataset.splits["dev"])
    return split, list(range(0, len(split.names), max(1, len(split.names) // SHOWN)))[:SHOWN]


def names_to_show(dataset: Dataset) -> list[str]:
    """The names of the images to show, in order."""
    split, rows = shown(dataset)
    return [split.names[row] for row in rows]


def scene_samples(model: Model, dataset: Dataset, seed: int) -> tuple[list[str], list[Entry]]:
    """The fraction of true captions of the shipped test scenes next to two baselines."""
    split, rows = shown(dataset)
    scenes = load_scenes(shipped_scenes() / "scenes.jsonl.gz")
    captions = generate_text([model.for_scaled_features()], split.features, BEAM)
    found = truth_and_baselines(captions, dataset.splits["train"], split, scenes, seed)
    lines = [f"true captions of {len(split.names)} test images, with unseen combinations"]
    lines += [
        f"          {fraction:6.1%}  {name}, {facts:.1f} facts a caption"
        for name, (fraction, facts) in found.items()
    ]
    some = [captions[row] for row in rows]
    some_scenes = [scenes[split.names[row]] for row in rows]
    return lines, list(zip(map(paint, some_scenes), some, truths(some, some_scenes), strict=True))


def photo_samples(
    model: Model, dataset: Dataset, photos: PhotoSource
) -> tuple[list[str], list[Entry]]:
    """Some of the photos with their captions. One that cannot be read becomes a line."""
    split, rows = shown(dataset)
    captions = generate_text([model.for_scaled_features()], split.features[rows], BEAM)
    names = names_to_show(dataset)
    places = find_names(names, photos.names)
    lines: list[str] = []
    entries: list[Entry] = []
    for name, caption in zip(names, captions, strict=True):
        try:
            entries.append((load_image(photos.open(places.get(name, name))), caption, None))
        except UnusableImage as error:
            lines.append(f"note      {error}")
    return lines, entries
