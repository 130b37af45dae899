"""Captions, splits and features brought together."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy

from minicap.data.batches import Batch, pack
from minicap.data.canonical import word_counts
from minicap.data.captions import Captions, find_names, read_captions, read_names
from minicap.data.features import Scaling, read_features
from minicap.data.splits import draw_splits
from minicap.data.vocabulary import SPECIAL, Vocabulary
from minicap.utils.errors import UserError

SHIPPED = [
    Path(__file__).parents[1] / "shipped" / "scenes",  # in an installed wheel
    Path(__file__).parents[2] / "data" / "scenes",  # in the repository
]


@dataclass(frozen=True)
class DataFiles:
    """Your own data: captions and features. All unset: the shipped scenes."""

    captions: Path | None = None
    """captions in any usual form: Flickr8k's or COCO's file, Karpathy's, CSV, JSON Lines"""
    features: Path | None = None
    """features of the photos: the folder that `python -m minicap.encode` has filled, or an .npz
    file with `names` (P,) and `features` (P, F)"""
    train_split: Path | None = None
    """names of the photos to train on, a line each [default: as the caption file says, else drawn];
    goes together with --dev-split"""
    dev_split: Path | None = None
    """names of the photos to choose the model by"""
    test_split: Path | None = None
    """names of the photos to judge the model by at the end (optional)"""
    dev_fraction: float = 0.1
    """share of the photos that is drawn for dev, where neither lists nor caption file say"""
    test_fraction: float = 0.0
    """share of the photos that is drawn for test"""
    split_seed: int = 0
    """of that drawing, by which a photo stays where it is when others are added"""

    def complete(self) -> "DataFiles":
        """These files, or those of the shipped scenes if none is set. UserError if some are."""
        needed = ["captions", "features"]
        if self.train_split or self.dev_split or self.test_split:
            needed += ["train_split", "dev_split"]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing and self.captions and self.features:
            lists = " and ".join("--" + name.replace("_", "-") for name in missing)
            raise UserError(f"lists of photos go together: give {lists} too")
        if missing and (len(missing) < len(needed) or self.test_split):
            options = ["--" + name.replace("_", "-") for name in missing]
            listed = " and ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
            raise UserError(f"your own data needs {listed}, too; without any, scenes are used")
        self.check_shares()
        if not missing:
            return self
        folder = shipped_scenes()
        return DataFiles(
            folder / "captions.txt.gz",
            folder / "features.npz",
            folder / "train.txt",
            folder / "dev.txt",
            folder / "test.txt",
        )

    def check_shares(self) -> None:
        """UserError, unless photos are left for train and dev."""
        shares = self.dev_fraction, self.test_fraction
        if not (0 < shares[0] < 1 and 0 <= shares[1] < 1 and sum(shares) < 1):
            raise UserError("--dev-fraction and --test-fraction must leave photos for every split")

    def splits(self, captions: Captions) -> tuple[dict[str, list[str]], str]:
        """Split -> photos, and who says so: the lists, the caption file, or the lot."""
        paths = {"train": self.train_split, "dev": self.dev_split, "test": self.test_split}
        lists = {split: read_names(path) for split, path in paths.items() if path}
        if lists:
            return lists, "the lists"
        if not captions.splits:
            self.check_shares()
            drawn = draw_splits(
                captions.texts, self.dev_fraction, self.test_fraction, self.split_seed
            )
            return drawn, "the lot"
        named = captions.splits.items()
        said = {split: [name for name, s in named if s == split] for split in paths}
        return {split: names for split, names in said.items() if names}, str(self.captions)


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
    ids: (C, max_length) and lengths: (C,), as from Vocabulary.encode; captions: P lists of texts.
    """

    names: list[str]
    features: numpy.ndarray
    image: numpy.ndarray
    ids: numpy.ndarray
    lengths: numpy.ndarray
    captions: list[list[str]] = field(repr=False)

    def batch(self, rows: numpy.ndarray) -> Batch:
        """The captions `rows`, packed."""
        return pack(self.features[self.image[rows]], self.ids[rows], self.lengths[rows])

    def word_counts(self, vocabulary: int) -> numpy.ndarray:
        """How often each word is one to predict, (V,), and 0.1 more: none is impossible."""
        predicted = (numpy.arange(self.ids.shape[1]) < self.lengths[:, None])[:, 1:]
        return numpy.bincount(self.ids[:, 1:][predicted], minlength=vocabulary) + 0.1

    def image_captions(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Where each photo's captions start in `ids`, and how many there are: (P,), (P,).
        Captions lie in the photos' order."""
        counts = numpy.bincount(self.image, minlength=len(self.names))
        return numpy.cumsum(counts) - counts, counts


@dataclass(frozen=True)
class Dataset:
    """All splits under one vocabulary and one scaling, with notes on what was left out."""

    splits: dict[str, Split]
    vocabulary: Vocabulary
    scaling: Scaling
    encoder: dict | None
    notes: list[str]

    @property
    def feature_size(self) -> int:
        """How many features of an image the decoder gets, after scaling."""
        return self.scaling.width

    def fingerprint(self) -> str:
        """SHA-256 of all that training reads: a resumed run must find the same data."""
        digest = hashlib.sha256("\n".join(self.vocabulary.words).encode())
        for split in self.splits.values():
            for array in (split.features, split.image, split.ids, split.lengths):
                digest.update(numpy.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_dataset(
    files: DataFiles, min_count: int, max_length: int, standardise: bool, components: int = 0
) -> Dataset:
    """Read `files` (complete). The vocabulary and the scaling come from the train split alone.

    UserError: a file is missing or broken, a photo is in two splits, nothing is left of a split.
    Photos without captions or features are left out and counted in the notes.
    """
    assert files.captions and files.features
    captions = read_captions(files.captions)
    features = read_features(files.features)
    lists, source = files.splits(captions)
    rows = {name: row for row, name in enumerate(features.names)}
    notes, kept = [], {}
    if captions.wordless:
        notes.append(f"{captions.wordless} captions without a word are left out")
    if source == "the lot":
        notes.append(
            f"splits drawn by photo with seed {files.split_seed}: "
            + ", ".join(f"{len(names):,} {split}" for split, names in lists.items())
        )
    for split in "train", "dev":
        if split not in lists:
            raise UserError(
                f"{files.captions}: no photo is in the {split} split; give lists of photos with "
                "--train-split and --dev-split" + ", or more photos" * (source == "the lot")
            )
    # Captions and lists may each write photos in a way of their own.
    captioned = find_names(captions.texts, rows)
    texts = {captioned.get(name, name): some for name, some in captions.texts.items()}
    listed_as = find_names(dict.fromkeys(n for names in lists.values() for n in names), rows)
    seen: dict[str, str] = {}
    for split, listed in lists.items():
        names = list(dict.fromkeys(listed_as.get(name, name) for name in listed))
        for name in names:
            if name in seen:
                where = getattr(files, f"{split}_split") or source
                raise UserError(f"{where}: {name} is in the {seen[name]} split as well")
            seen[name] = split
        for lack, have in (("captions", texts), ("features", rows)):
            without = [name for name in names if name not in have]
            if without:
                notes.append(f"{split}: {len(without)} photos have no {lack} ({without[0]}, ...)")
        kept[split] = [name for name in names if name in texts and name in rows]
        if not kept[split]:
            where = getattr(files, f"{split}_split") or f"{source}, {split}"
            raise UserError(
                f"{where}: none of its {len(names)} photos has both captions "
                f"in {files.captions} and features in {files.features}"
            )
    unused = len(rows.keys() - texts.keys())
    if unused:
        notes.append(f"{unused} photos have features but no captions")
    vocabulary = Vocabulary.of((text for name in kept["train"] for text in texts[name]), min_count)
    if len(vocabulary) == len(SPECIAL):
        raise UserError(f"no word of train occurs {min_count} times or more: lower --min-count")

    def make(names: list[str]) -> Split:
        written = [texts[name] for name in names]
        ids, lengths = vocabulary.encode([text for some in written for text in some], max_length)
        photo = numpy.repeat(numpy.arange(len(names)), [len(some) for some in written])
        array = features.array[[rows[name] for name in names]]
        return Split(names, array, photo, ids, lengths, written)

    splits = {split: make(names) for split, names in kept.items()}
    train = splits["train"]
    if components:
        counts = word_counts(train.ids, train.image, len(train.names))
        scaling = Scaling.canonical(train.features, counts, components)
        if (found := scaling.width) < components:
            notes.append(f"--components {components}: there are only {found}, which are used")
    elif standardise:
        scaling = Scaling.standard(train.features)
    else:
        scaling = Scaling.none(features.array.shape[1])
    splits = {
        name: replace(split, features=scaling(split.features)) for name, split in splits.items()
    }
    return Dataset(splits, vocabulary, scaling, features.encoder, notes)
