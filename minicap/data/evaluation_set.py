"""The data of an evaluation: the images of one split, their reference captions and features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy

from minicap.data.captions import read_all_captions
from minicap.data.dataset import RANDOM, DataFiles
from minicap.data.features import read_all_features
from minicap.data.names import find_names
from minicap.utils.errors import UserError
from minicap.utils.files import listed


@dataclass(frozen=True)
class EvaluationSet:
    """P images with reference captions.

    Attributes:
        names: the images' names in the caption file.
        captions: P lists of at least one text.
        features: (P, F), not scaled; or None.
        encoder: the features' encoder as in `Features`, or None.
        notes: messages about what was left out.
    """

    names: list[str]
    captions: list[list[str]]
    features: numpy.ndarray | None
    encoder: dict | None
    notes: list[str]

    @property
    def references(self) -> dict[str, list[str]]:
        """Image -> its captions."""
        return dict(zip(self.names, self.captions, strict=True))


def read_evaluation_set(files: DataFiles, split: str, random: bool = True) -> EvaluationSet:
    """Read the images of one split.

    Images without captions are left out and noted. So are images without features, if `files`
    names features.

    Args:
        files: at least the captions.
        split: "train", "dev", "test" or "all" (every image of the caption file).
        random: whether a random split is allowed if neither lists nor the caption file have one.

    Raises:
        UserError: a file is missing or broken, there is no such split, or it is empty.
    """
    assert files.captions
    captions = read_all_captions(files.captions, files.strict)
    if split == "all":
        names = list(captions.texts)
    else:
        lists, source = files.splits(captions)
        if source == RANDOM and not random:
            raise UserError(f"the {split} split is unknown: name its images with --{split}-split")
        if split not in lists:
            raise UserError(
                f"{listed(files.captions)}: no image is in the {split} split: give a list of its "
                f"images with --{split}-split, or choose another --split"
            )
        names = list(dict.fromkeys(lists[split]))
    notes = list(captions.notes)
    wanted, known = len(names), find_names(names, captions.texts)
    if missing := [name for name in names if name not in known]:
        notes.append(f"{split}: {len(missing):,} images have no captions ({missing[0]}, ...)")
    names = list(known.values())
    array = encoder = None
    if files.features:
        features = read_all_features(files.features)
        rows = {name: row for row, name in enumerate(features.names)}
        found = find_names(names, rows)
        if missing := [name for name in names if name not in found]:
            notes.append(f"{split}: {len(missing):,} images have no features ({missing[0]}, ...)")
        names = list(found)
        array = features.array[[rows[name] for name in found.values()]]
        encoder = features.encoder
    if not names:
        both = f" (which names {next(iter(captions.texts))!r})"
        if files.features:
            both += f" and features in {listed(files.features)} (which names {features.names[0]!r})"
        raise UserError(
            f"none of the {wanted:,} images of the {split} split has captions in "
            f"{listed(files.captions)}{both}"
        )
    return EvaluationSet(names, [captions.texts[name] for name in names], array, encoder, notes)


def sources(own: DataFiles, trained: Mapping | None) -> tuple[DataFiles, list[DataFiles]]:
    """Choose the files to evaluate on, and the files that may contain the training images.

    If `own` names captions, only `own` is evaluated on. Else it replaces single files of the
    training run. With neither, the shipped scenes are used.

    Args:
        own: from the command line.
        trained: the `DataFiles` of the training run as the model stores them (JSON), or None.

    Returns:
        The files to evaluate on; and those that may contain the training images, likeliest first.

    Raises:
        UserError: an option needs others, or the training run's captions are missing.
    """
    trained_on = DataFiles(**DataFiles.fields_from_json(trained or {}))
    if own.captions:
        return own, [*([trained_on.complete()] if trained else []), own]
    given = {name: value for name, value in vars(own).items() if value != vars(DataFiles())[name]}
    files = replace(trained_on, **given).complete()
    if gone := [path for path in trained_on.captions if not path.exists()]:
        raise UserError(
            f"{gone[0]}: the model's training captions are no longer there; "
            "name the data with --captions and --features"
        )
    return files, [files]


def training_set(
    trained_on: Sequence[DataFiles], evaluated: EvaluationSet, random: bool = True
) -> tuple[EvaluationSet | None, list[str]]:
    """Read the training images that baselines need.

    Args:
        trained_on: from `sources`; the first with a usable train split is read.
        evaluated: the images to evaluate; their features must have the same size.
        random: as for `read_evaluation_set`.

    Returns:
        The training set or None, and notes in words.
    """
    reasons = []
    for files in trained_on:
        try:
            train = read_evaluation_set(files, "train", random)
        except UserError as error:
            reasons.append(str(error))
            continue
        one, other = evaluated.features, train.features
        if one is not None and other is not None and one.shape[1] != other.shape[1]:
            reasons.append(
                f"{listed(files.features)}: {other.shape[1]} features, not {one.shape[1]}"
            )
            continue
        notes = []
        if other is None:
            notes.append("no nearest-neighbour baseline: it needs --features")
        if seen := set(train.names).intersection(evaluated.names):
            notes.append(f"{len(seen):,} of the images are in train too: scores are too good")
        return train, notes
    return None, [f"no baselines from train: {reason}" for reason in reasons[:1]]
