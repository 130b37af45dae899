"""Sample captions at the end of a training run: lines to print and entries of a contact sheet."""

from minicap.data.dataset import Dataset, Split, shipped_scenes
from minicap.data.names import find_names
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

COUNT = 12  # images to show


def sample_captions(
    model: Model, dataset: Dataset, drawn: bool, photos: PhotoSource | None, seed: int
) -> tuple[list[str], list[Entry]]:
    """Caption images of the test split or, without one, of the dev split.

    Args:
        model: generates the captions.
        dataset: what the model was trained on.
        drawn: whether the dataset is the shipped scenes.
        photos: where the dataset's photos are, or None to show none.
        seed: of the shuffled baseline.

    Returns:
        Lines to print, and up to COUNT images with captions.
    """
    if drawn:
        return scene_samples(model, dataset, seed)
    return photo_samples(model, dataset, photos) if photos else ([], [])


def sample_rows(dataset: Dataset) -> tuple[Split, list[int]]:
    """Return the split to show images of, and their rows."""
    split = dataset.splits.get("test", dataset.splits["dev"])
    return split, list(range(0, len(split.names), max(1, len(split.names) // COUNT)))[:COUNT]


def names_to_show(dataset: Dataset) -> list[str]:
    """Return the names of the images to show, in order."""
    split, rows = sample_rows(dataset)
    return [split.names[row] for row in rows]


def scene_samples(model: Model, dataset: Dataset, seed: int) -> tuple[list[str], list[Entry]]:
    """Caption the test scenes and count the true captions, next to two baselines."""
    split, rows = sample_rows(dataset)
    scenes = load_scenes(shipped_scenes() / "scenes.jsonl.gz")
    captions = generate_text([model.for_scaled_features()], split.features, BEAM)
    found = truth_and_baselines(captions, dataset.splits["train"], split, scenes, seed)
    lines = [f"true captions of {len(split.names)} test images, with unseen combinations"]
    lines += [
        f"          {fraction:6.1%}  {name}, {facts:.1f} facts per caption"
        for name, (fraction, facts) in found.items()
    ]
    shown = [captions[row] for row in rows]
    drawn = [scenes[split.names[row]] for row in rows]
    return lines, list(zip(map(paint, drawn), shown, truths(shown, drawn), strict=True))


def photo_samples(
    model: Model, dataset: Dataset, photos: PhotoSource
) -> tuple[list[str], list[Entry]]:
    """Caption some photos. One that cannot be read becomes a line."""
    split, rows = sample_rows(dataset)
    captions = generate_text([model.for_scaled_features()], split.features[rows], BEAM)
    names = names_to_show(dataset)
    found = find_names(names, photos.names)
    lines: list[str] = []
    entries: list[Entry] = []
    for name, caption in zip(names, captions, strict=True):
        try:
            entries.append((load_image(photos.open(found.get(name, name))), caption, None))
        except UnusableImage as error:
            lines.append(f"note      {error}")
    return lines, entries
