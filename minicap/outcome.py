"""What a run has come to: lines to print, and pictures with the captions that were written."""

from minicap.data.captions import find_names
from minicap.data.dataset import Dataset, Split, shipped_scenes
from minicap.data.scenes import load_scenes
from minicap.data.scenes.drawing import draw
from minicap.encoder.image import load_image
from minicap.encoder.photos import Photos
from minicap.ensemble import generate_text
from minicap.errors import UnusableImage
from minicap.generate import BEAM
from minicap.model import Model
from minicap.report import Entry
from minicap.truth import truth_and_baselines, truths

SHOWN = 12  # pictures


def judged(dataset: Dataset) -> tuple[Split, list[int]]:
    """The split to judge by, test if there is one, and the rows of the pictures to show of it."""
    split = dataset.splits.get("test", dataset.splits["dev"])
    return split, list(range(0, len(split.names), max(1, len(split.names) // SHOWN)))[:SHOWN]


def names_to_show(dataset: Dataset) -> list[str]:
    """The names of the pictures to show, in their order."""
    split, rows = judged(dataset)
    return [split.names[row] for row in rows]


def scenes_outcome(model: Model, dataset: Dataset, seed: int) -> tuple[list[str], list[Entry]]:
    """The share of true captions of the shipped test scenes beside its two floors."""
    split, rows = judged(dataset)
    scenes = load_scenes(shipped_scenes() / "scenes.jsonl.gz")
    captions = generate_text([model.for_scaled_features()], split.features, BEAM)
    found = truth_and_baselines(captions, dataset.splits["train"], split, scenes, seed)
    lines = [f"true captions of {len(split.names)} test pictures, combinations never trained on"]
    lines += [
        f"          {share:6.1%}  {writer}, {stated:.1f} facts a caption"
        for writer, (share, stated) in found.items()
    ]
    some = [captions[row] for row in rows]
    shown = [scenes[split.names[row]] for row in rows]
    pictures = map(draw, shown)
    return lines, list(zip(pictures, some, truths(some, shown), strict=True))


def photos_outcome(model: Model, dataset: Dataset, photos: Photos) -> tuple[list[str], list[Entry]]:
    """Some of the photos with their captions; one that cannot be read becomes a line."""
    split, rows = judged(dataset)
    captions = generate_text([model.for_scaled_features()], split.features[rows], BEAM)
    names = names_to_show(dataset)
    places = find_names(names, photos.names)
    lines: list[str] = []
    entries: list[Entry] = []
    for name, caption in zip(names, captions, strict=True):
        try:
            picture = load_image(photos.open(places.get(name, name)))
            entries.append((picture, caption, None))
        except UnusableImage as error:
            lines.append(f"note      {error}")
    return lines, entries
