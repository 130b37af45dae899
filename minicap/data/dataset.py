"""A data set for training: captions, splits and features under one vocabulary and scaling."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from minicap.data.batches import Batch, pack
from minicap.data.canonical import word_counts
from minicap.data.captions import Captions, read_all_captions, read_names
from minicap.data.features import Scaling, read_all_features
from minicap.data.names import find_names
from minicap.data.splits import random_splits
from minicap.data.tokenisers import TokenizerName, advice
from minicap.data.vocabulary import SPECIAL, Vocabulary
from minicap.utils.errors import UserError
from minicap.utils.files import listed

RANDOM = "a random split"  # the source of splits that neither lists nor the caption file give
SHIPPED = [
    Path(__file__).parents[1] / "shipped" / "scenes",  # in an installed wheel
    Path(__file__).parents[2] / "data" / "scenes",  # in the repository
]


@dataclass(frozen=True)
class DataFiles:
    """Your own captions and features. Without any of these options: the shipped scenes."""

    captions: tuple[Path, ...] = ()
    """captions in any common format, in one or more files: Flickr8k, COCO, Karpathy's splits, CSV,
    JSON Lines"""
    features: tuple[Path, ...] = ()
    """features of the photos, one or more: the folder that `minicap encode` filled, or an .npz file
    with `names` (P,) and `features` (P, F)"""
    train_split: Path | None = None
    """names of the photos to train on, one per line; needs --dev-split [default: the splits of the
    caption file, else random ones]"""
    dev_split: Path | None = None
    """names of the photos for early stopping and for choosing the model"""
    test_split: Path | None = None
    """names of the photos for the final evaluation (optional)"""
    dev_fraction: float = 0.1
    """fraction of the photos for the dev split, if splits are random"""
    test_fraction: float = 0.0
    """fraction of the photos for the test split, if splits are random"""
    split_seed: int = 0
    """seed of random splits; adding photos moves no photo to another split"""
    strict: bool = False
    """refuse caption files with rows that cannot be read, instead of skipping up to ten, or 1 %"""

    def complete(self) -> "DataFiles":
        """Check that the options go together, and fill in the shipped scenes if none is set.

        Raises:
            UserError: an option needs others, or the fractions are out of range.
        """
        needed = ["captions", "features"]
        if self.train_split or self.dev_split or self.test_split:
            needed += ["train_split", "dev_split"]
        missing = [name for name in needed if not getattr(self, name)]
        if missing and self.captions and self.features:
            lists = " and ".join("--" + name.replace("_", "-") for name in missing)
            raise UserError(f"lists of photos go together: give {lists} too")
        if missing and (len(missing) < len(needed) or self.test_split):
            options = ["--" + name.replace("_", "-") for name in missing]
            listed = " and ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
            raise UserError(
                f"your own data needs {listed}, too; without any of these, the scenes are used"
            )
        self.check_fractions()
        if not missing:
            return self
        folder = shipped_scenes()
        return DataFiles(
            (folder / "captions.txt.gz",),
            (folder / "features.npz",),
            folder / "train.txt",
            folder / "dev.txt",
            folder / "test.txt",
        )

    def check_fractions(self) -> None:
        """Check that random splits leave photos for train and dev; raise UserError if not."""
        dev, test = self.dev_fraction, self.test_fraction
        if not (0 < dev < 1 and 0 <= test < 1 and dev + test < 1):
            raise UserError("--dev-fraction and --test-fraction must leave photos for every split")

    def splits(self, captions: Captions) -> tuple[dict[str, list[str]], str]:
        """Find the splits: from the lists of photos, else from the caption file, else random.

        Args:
            captions: the content of the caption file.

        Returns:
            Split -> names of its photos; and the source in words (`RANDOM` for a random split).

        Raises:
            UserError: a list cannot be read.
        """
        paths = {"train": self.train_split, "dev": self.dev_split, "test": self.test_split}
        lists = {split: read_names(path) for split, path in paths.items() if path}
        if lists:
            return lists, "the lists"
        if not captions.splits:
            self.check_fractions()
            splits = random_splits(
                captions.texts, self.dev_fraction, self.test_fraction, self.split_seed
            )
            return splits, RANDOM
        items = captions.splits.items()
        splits = {split: [name for name, s in items if s == split] for split in paths}
        return {split: names for split, names in splits.items() if names}, listed(self.captions)

    @staticmethod
    def fields_from_json(values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `DataFiles` from JSON, where paths are texts.

        Args:
            values: a value for each field, as a run or a model stores them. Runs of earlier
                versions have one text for `captions` and for `features`.
        """
        fields = dict(values)
        for name in "captions", "features":
            some = fields.get(name) or []
            fields[name] = tuple(map(Path, [some] if isinstance(some, str) else some))
        for name in "train_split", "dev_split", "test_split":
            if fields.get(name):
                fields[name] = Path(fields[name])
        return fields


def shipped_scenes() -> Path:
    """Find the folder of the shipped data set.

    Raises:
        UserError: this installation has none.
    """
    for folder in SHIPPED:
        if (folder / "features.npz").exists():
            return folder
    raise UserError(
        "the shipped scenes are not part of this installation: "
        "make them with `minicap scenes --out data/scenes`"
    )


@dataclass(frozen=True)
class Split:
    """One split of a data set: P images with C captions.

    Attributes:
        names: P names.
        features: (P, F) float32, scaled.
        image: (C,) each caption's row in ``features``, ascending.
        ids: (C, T) token ids, from `Vocabulary.encode`.
        lengths: (C,) the captions' lengths in tokens.
        captions: P lists of texts.
    """

    names: list[str]
    features: numpy.ndarray
    image: numpy.ndarray
    ids: numpy.ndarray
    lengths: numpy.ndarray
    captions: list[list[str]] = field(repr=False)

    def batch(self, rows: numpy.ndarray) -> Batch:
        """Pack the captions with these indices, (N,), into a batch."""
        return pack(self.features[self.image[rows]], self.ids[rows], self.lengths[rows])

    def word_counts(self, vocabulary: int) -> numpy.ndarray:
        """Count how often each word is a target, (V,), plus 0.1 so that no count is zero.

        Args:
            vocabulary: V, the number of words.
        """
        predicted = (numpy.arange(self.ids.shape[1]) < self.lengths[:, None])[:, 1:]
        return numpy.bincount(self.ids[:, 1:][predicted], minlength=vocabulary) + 0.1

    @cached_property
    def image_captions(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The first caption of each image in ``ids``, and the number of its captions, both (P,)."""
        counts = numpy.bincount(self.image, minlength=len(self.names))
        return numpy.cumsum(counts) - counts, counts


@dataclass(frozen=True)
class Dataset:
    """All splits under one vocabulary and one scaling.

    Attributes:
        splits: "train", "dev" and perhaps "test" -> its images and captions.
        vocabulary: of the training captions.
        scaling: of the features, fitted on the training images.
        encoder: the features' encoder as in `Features`, or None if unknown.
        notes: messages about what was left out.
    """

    splits: dict[str, Split]
    vocabulary: Vocabulary
    scaling: Scaling
    encoder: dict | None
    notes: list[str]

    @property
    def feature_size(self) -> int:
        """The number of features per image after scaling."""
        return self.scaling.width

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of everything training reads, to compare when a run resumes."""
        digest = hashlib.sha256("\n".join(self.vocabulary.words).encode())
        for split in self.splits.values():
            for array in (split.features, split.image, split.ids, split.lengths):
                digest.update(numpy.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_dataset(
    files: DataFiles,
    min_count: int,
    max_length: int,
    standardise: bool,
    *,
    components: int = 0,
    tokenizer: TokenizerName = "course",
    trained: tuple[Vocabulary, Scaling] | None = None,
) -> Dataset:
    """Read a data set. The vocabulary and the scaling come from the training set only.

    Photos without captions or without features are left out, and counted in the notes.

    Args:
        files: from `DataFiles.complete`.
        min_count: the occurrences a word needs to be in the vocabulary.
        max_length: the tokens a caption may have, #START# and #END# included.
        standardise: give each feature mean 0 and standard deviation 1.
        components: if not 0, reduce the features to this many canonical components instead.
        tokenizer: a name of `minicap.data.tokenisers.TOKENISERS`.
        trained: a trained model's vocabulary, to which new words are added, and its scaling, which
            is used unchanged.

    Raises:
        UserError: a file is missing or broken, a photo is in two splits, a split is empty, or no
            word is frequent enough.
    """
    assert files.captions and files.features
    captions = read_all_captions(files.captions, files.strict)
    features = read_all_features(files.features)
    caption_files, feature_files = listed(files.captions), listed(files.features)
    lists, source = files.splits(captions)
    rows = {name: row for row, name in enumerate(features.names)}
    notes, kept = list(captions.notes), {}
    if source == RANDOM:
        notes.append(
            f"random splits with seed {files.split_seed}: "
            + ", ".join(f"{len(names):,} {split}" for split, names in lists.items())
        )
    for split in "train", "dev":
        if split not in lists:
            raise UserError(
                f"{caption_files}: no photo is in the {split} split; give lists of photos with "
                "--train-split and --dev-split"
                + ", or change --dev-fraction or --split-seed"
                * (source == RANDOM)
            )
    # The caption file and the lists may name photos with or without their folder.
    captioned = find_names(captions.texts, rows)
    texts = {captioned.get(name, name): some for name, some in captions.texts.items()}
    listed_as = find_names(dict.fromkeys(n for names in lists.values() for n in names), rows)
    seen: dict[str, str] = {}
    for split, wanted in lists.items():
        names = list(dict.fromkeys(listed_as.get(name, name) for name in wanted))
        for name in names:
            if name in seen:
                where = getattr(files, f"{split}_split") or source
                raise UserError(f"{where}: {name} is in the {seen[name]} split as well")
            seen[name] = split
        for kind, known in (("captions", texts), ("features", rows)):
            without = [name for name in names if name not in known]
            if without:
                notes.append(f"{split}: {len(without)} photos have no {kind} ({without[0]}, ...)")
        kept[split] = [name for name in names if name in texts and name in rows]
        if not kept[split]:
            where = getattr(files, f"{split}_split") or f"{source}, {split}"
            raise UserError(
                f"{where}: none of its {len(names)} photos has both captions in {caption_files} "
                f"(which names {next(iter(captions.texts))!r}) and features in {feature_files} "
                f"(which names {features.names[0]!r})"
            )
    unused = len(rows.keys() - texts.keys())
    if unused:
        notes.append(f"{unused} photos have features but no captions")
    captions_of_train = [text for name in kept["train"] for text in texts[name]]
    vocabulary = Vocabulary.of(captions_of_train, min_count, tokenizer)
    if trained:
        vocabulary = Vocabulary([*vocabulary.words, *trained[0].words], tokenizer)
    if better := advice(captions_of_train[:1000], tokenizer):
        notes.append(better)
    if len(vocabulary) == len(SPECIAL):
        raise UserError(
            f"no training word occurs {min_count} times or more: {better or 'lower --min-count'}"
        )

    def make(names: list[str]) -> Split:
        by_image = [texts[name] for name in names]
        ids, lengths = vocabulary.encode([text for some in by_image for text in some], max_length)
        image = numpy.repeat(numpy.arange(len(names)), [len(some) for some in by_image])
        array = features.array[[rows[name] for name in names]]
        return Split(names, array, image, ids, lengths, by_image)

    splits = {split: make(names) for split, names in kept.items()}
    train = splits["train"]
    if note := truncated(train, vocabulary, max_length):
        notes.append(note)
    if trained:
        scaling, width = trained[1], features.array.shape[1]
        if width != len(scaling.mean):
            raise UserError(
                f"{feature_files}: {width:,} features, but the model was trained on "
                f"{len(scaling.mean):,}: encode the photos with its encoder"
            )
    elif components:
        counts = word_counts(train.ids, train.image, len(train.names))
        scaling = Scaling.canonical(train.features, counts, components)
        if (found := scaling.width) < components:
            notes.append(f"--components {components}: only {found} exist; all are used")
    elif standardise:
        scaling = Scaling.standard(train.features)
    else:
        scaling = Scaling.none(features.array.shape[1])
    splits = {
        name: replace(split, features=scaling(split.features)) for name, split in splits.items()
    }
    return Dataset(splits, vocabulary, scaling, features.encoder, notes)


def truncated(split: Split, vocabulary: Vocabulary, max_length: int) -> str | None:
    """Describe how many captions of a split are truncated; None if hardly any are."""
    last = split.ids[numpy.arange(len(split.ids)), split.lengths - 1]
    cut = int((last != vocabulary.end).sum())
    if cut <= 0.05 * len(last):
        return None
    return (
        f"{cut:,} of {len(last):,} training captions are longer than --max-length {max_length} "
        "and are truncated, so the model learns no end for them: raise --max-length"
    )
