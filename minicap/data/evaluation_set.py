"""What an evaluation reads: the pictures of one split, what people said of them, their features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy

from minicap.data.captions import find_names, read_captions
from minicap.data.dataset import DataFiles
from minicap.data.features import read_features
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class EvaluationSet:
    """P pictures.

    names: as the caption file has them; captions: P lists of one text or more; features: (P, F) as
    the encoder made them, or None; encoder: what is known of that, or None; notes: what was left
    out, in words.
    """

    names: list[str]
    captions: list[list[str]]
    features: numpy.ndarray | None
    encoder: dict | None
    notes: list[str]

    @property
    def references(self) -> dict[str, list[str]]:
        """Picture -> its captions."""
        return dict(zip(self.names, self.captions, strict=True))


def read_evaluation_set(files: DataFiles, split: str, drawn: bool = True) -> EvaluationSet:
    """The pictures of a split, or of split "all" the whole caption file's.

    files: captions at least; drawn: may splits be drawn where nothing says which they are. EvaluationSet
    without captions, or without features where a file of them is given, are left out and noted.
    UserError: a file is missing or broken, there is no such split, nothing is left of it.
    """
    assert files.captions
    said = read_captions(files.captions)
    if split == "all":
        names = list(said.texts)
    else:
        lists, source = files.splits(said)
        if source == "the lot" and not drawn:
            raise UserError(f"nothing says which pictures are {split}: use --{split}-split")
        if split not in lists:
            raise UserError(
                f"{files.captions}: no picture is in the {split} split: give a list of its "
                f"pictures with --{split}-split, or choose another --split"
            )
        names = list(dict.fromkeys(lists[split]))
    notes = []
    if said.wordless:
        notes.append(f"{said.wordless:,} captions without a word are left out")
    listed, known = len(names), find_names(names, said.texts)
    if lost := [name for name in names if name not in known]:
        notes.append(f"{split}: {len(lost):,} pictures have no captions ({lost[0]}, ...)")
    names = list(known.values())
    array = encoder = None
    if files.features:
        features = read_features(files.features)
        rows = {name: row for row, name in enumerate(features.names)}
        found = find_names(names, rows)
        if lost := [name for name in names if name not in found]:
            notes.append(f"{split}: {len(lost):,} pictures have no features ({lost[0]}, ...)")
        names = list(found)
        array = features.array[[rows[name] for name in found.values()]]
        encoder = features.encoder
    if not names:
        both = f" and features in {files.features}" if files.features else ""
        raise UserError(
            f"none of the {listed:,} pictures of the {split} split has captions in "
            f"{files.captions}{both}"
        )
    return EvaluationSet(names, [said.texts[name] for name in names], array, encoder, notes)


def sources(own: DataFiles, remembered: Mapping | None) -> tuple[DataFiles, list[DataFiles]]:
    """The files to judge by, and those that may have the training pictures, the likeliest first.

    own: as the command line names them; remembered: the same of the training run, JSON, or None.
    Where `own` names captions, nothing remembered is judged by; else it overrides single files. If
    nothing is named at all, it is the shipped scenes. UserError: files that need others.
    """
    values: dict[str, Any] = {
        name: Path(value) if isinstance(value, str) else value
        for name, value in (remembered or {}).items()
    }
    trained_on = DataFiles(**values)
    if own.captions:
        return own, [*([trained_on.complete()] if remembered else []), own]
    given = {name: value for name, value in vars(own).items() if value != vars(DataFiles())[name]}
    files = replace(trained_on, **given).complete()
    if trained_on.captions and not trained_on.captions.exists():
        raise UserError(
            f"{trained_on.captions}, the captions that the model was trained on, are not there: "
            "name the data with --captions and --features"
        )
    return files, [files]


def training_set(
    trained_on: Sequence[DataFiles], pictures: EvaluationSet, drawn: bool = True
) -> tuple[EvaluationSet | None, list[str]]:
    """The train split of the first of these files that has one whose features compare with those
    of `pictures`; or None. And notes, in words. drawn: as for `read_evaluation_set`."""
    reasons = []
    for files in trained_on:
        try:
            train = read_evaluation_set(files, "train", drawn)
        except UserError as error:
            reasons.append(str(error))
            continue
        one, other = pictures.features, train.features
        if one is not None and other is not None and one.shape[1] != other.shape[1]:
            reasons.append(f"{files.features}: {other.shape[1]} features, not {one.shape[1]}")
            continue
        notes = []
        if other is None:
            notes.append("no nearest-neighbour floor: no file of --features")
        if seen := set(train.names).intersection(pictures.names):
            notes.append(f"{len(seen):,} of the pictures are in train too: scores are too good")
        return train, notes
    return None, [f"no floors from train: {reason}" for reason in reasons[:1]]
