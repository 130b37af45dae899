"""Captions, splits and features brought together."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from minicap.data.batches import Batch, pack
from minicap.data.captions import read_captions, read_names
from minicap.data.features import Scaling, read_features
from minicap.data.vocabulary import SPECIAL, Vocabulary
from minicap.errors import UserError

SHIPPED = [
    Path(__file__).parents[1] / "shipped" / "scenes",  # in an installed wheel
    Path(__file__).parents[2] / "data" / "scenes",  # in the repository
]


@dataclass(frozen=True)
class DataFiles:
    """Your own data: captions, lists of photos and features. All unset: the shipped scenes."""

    captions: Path | None = None
    """captions, a line each: name.jpg#0<TAB>A dog runs ."""
    train_split: Path | None = None
    """names of the photos to train on, a line each"""
    dev_split: Path | None = None
    """names of the photos to choose the model by"""
    test_split: Path | None = None
    """names of the photos to judge the model by at the end (optional)"""
    features: Path | None = None
    """features of the photos: .npz with `names` (P,) and `features` (P, F)"""

    def complete(self) -> "DataFiles":
        """These files, or those of the shipped scenes if none is set. UserError if some are."""
        needed = ("captions", "train_split", "dev_split", "features")
        missing = [name for name in needed if getattr(self, name) is None]
        if not missing:
            return self
        if len(missing) < len(needed) or self.test_split:
            options = ", ".join("--" + name.replace("_", "-") for name in missing)
            raise UserError(f"your own data also needs {options}; without any, scenes are used")
        folder = shipped_scenes()
        return DataFiles(
            folder / "captions.txt",
            folder / "train.txt",
            folder / "dev.txt",
            folder / "test.txt",
            folder / "features.npz",
        )


def shipped_scenes() -> Path:
    """The folder of the data set that is shipped. UserError when this installation lacks it."""
    for folder in SHIPPED:
        if (folder / "features.npz").exists():
            return folder
    raise UserError(
        "the shipped scenes are not part of this installation: "
        "make them with `python -m minicap.scenes --out data/scenes`"
    )


@dataclass(frozen=True)
class Split:
    """P photos with C captions.

    names: P names; features: (P, F) float32; photo: (C,) each caption's row in `features`;
    ids: (C, max_len) and lengths: (C,), as from Vocabulary.encode; captions: P lists of texts.
    """

    names: list[str]
    features: numpy.ndarray
    photo: numpy.ndarray
    ids: numpy.ndarray
    lengths: numpy.ndarray
    captions: list[list[str]] = field(repr=False)

    def batch(self, rows: numpy.ndarray) -> Batch:
        """The captions `rows`, packed."""
        return pack(self.features[self.photo[rows]], self.ids[rows], self.lengths[rows])

    def photo_captions(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Where each photo's captions start in `ids`, and how many there are: (P,), (P,).
        Captions lie in the photos' order."""
        counts = numpy.bincount(self.photo, minlength=len(self.names))
        return numpy.cumsum(counts) - counts, counts


@dataclass(frozen=True)
class Dataset:
    """All splits under one vocabulary and one scaling, with notes on what was left out."""

    splits: dict[str, Split]
    vocabulary: Vocabulary
    scaling: Scaling
    encoder: dict | None
    notes: list[str]

    def fingerprint(self) -> str:
        """SHA-256 of all that training reads: a resumed run must find the same data."""
        digest = hashlib.sha256("\n".join(self.vocabulary.words).encode())
        for split in self.splits.values():
            for array in (split.features, split.photo, split.ids, split.lengths):
                digest.update(numpy.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_dataset(
    files: DataFiles, min_count: int, max_len: int, standardise: bool, components: int = 0
) -> Dataset:
    """Read `files` (complete). The vocabulary and the scaling come from the train split alone.

    UserError: a file is missing or broken, a photo is in two splits, nothing is left of a split.
    Photos without captions or features are left out and counted in the notes.
    """
    assert files.captions and files.features
    captions = read_captions(files.captions)
    features = read_features(files.features)
    paths = {"train": files.train_split, "dev": files.dev_split, "test": files.test_split}
    lists = {split: read_names(path) for split, path in paths.items() if path}
    rows = {name: row for row, name in enumerate(features.names)}
    notes, kept = [], {}
    seen: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if name in seen:
                raise UserError(f"{paths[split]}: {name} is in the {seen[name]} split as well")
            seen[name] = split
        for lack, have in (("captions", captions), ("features", rows)):
            without = [name for name in names if name not in have]
            if without:
                notes.append(f"{split}: {len(without)} photos have no {lack} ({without[0]}, ...)")
        kept[split] = [name for name in names if name in captions and name in rows]
        if not kept[split]:
            raise UserError(
                f"{paths[split]}: none of its {len(names)} photos has both captions "
                f"in {files.captions} and features in {files.features}"
            )
    unused = len(rows.keys() - captions.keys())
    if unused:
        notes.append(f"{unused} photos have features but no captions")
    vocabulary = Vocabulary.of(
        (text for name in kept["train"] for text in captions[name]), min_count
    )
    if len(vocabulary) == len(SPECIAL):
        raise UserError(f"no word of train occurs {min_count} times or more: lower --min-count")
    train_array = features.array[[rows[name] for name in kept["train"]]]
    if standardise or components:
        scaling = Scaling.of(train_array, components)
    else:
        scaling = Scaling.none(features.array.shape[1])

    def make(names: list[str]) -> Split:
        texts = [captions[name] for name in names]
        ids, lengths = vocabulary.encode([text for some in texts for text in some], max_len)
        photo = numpy.repeat(numpy.arange(len(names)), [len(some) for some in texts])
        array = scaling(features.array[[rows[name] for name in names]])
        return Split(names, array, photo, ids, lengths, texts)

    splits = {split: make(names) for split, names in kept.items()}
    return Dataset(splits, vocabulary, scaling, features.encoder, notes)
