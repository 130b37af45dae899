"""Captions from a file in any usual form, and lists of photos."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from minicap.data.formats import Malformed, entries
from minicap.utils.errors import UserError
from minicap.utils.files import read_lines, read_text

# What the files call the three splits. Karpathy's restval is the part of COCO's val that he gives
# to train.
SPLITS = {
    "train": "train", "training": "train", "restval": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test",
}  # fmt: skip
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Captions:
    """What a caption file says.

    texts: photo -> its captions, in the file's order; splits: photo -> "train", "dev" or "test", or
    nothing at all if the file has no splits; wordless: captions left out, as they have no word.
    """

    texts: dict[str, list[str]]
    splits: dict[str, str]
    wordless: int


def read_captions(path: Path) -> Captions:
    """Captions from a file in one of the forms of minicap.data.formats.

    UserError, with the place: no file, no captions, a form that is not known or broken, a photo in
    two splits.
    """
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    wordless = 0
    try:
        for name, caption, split in entries(read_text(path, "caption file")):
            if split:
                known = SPLITS.get(split.lower())
                if not known:
                    raise Malformed(f"{name}: unknown split {split!r}: use train, dev or test")
                if splits.setdefault(name, known) != known:
                    raise Malformed(f"{name} is in the splits {splits[name]} and {known}")
            if WORD.search(caption):
                texts.setdefault(name, []).append(caption.strip())
            else:
                wordless += 1
    except Malformed as error:
        raise UserError(f"{path}: {error}".replace(": line ", ", line ", 1)) from error
    if not texts:
        raise UserError(f"{path}: no captions in this file")
    if splits and (missing := texts.keys() - splits.keys()):
        raise UserError(f"{path}: {min(missing)} has no split, others have")
    return Captions(texts, splits, wordless)


def read_names(path: Path) -> list[str]:
    """Photo names, one a line, each once. UserError: no file, or none in it."""
    lines = map(str.strip, read_lines(path, "list of photos"))
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise UserError(f"{path}: no photo names in this file")
    return names


def find_names(wanted: Iterable[str], there: Collection[str]) -> dict[str, str]:
    """Under which name each wanted photo is there: its own, or the one with the same last part.

    A caption file may say 42.jpg where a folder of photos has val2017/42.jpg, or the other way
    round. Photos that are not there are left out. UserError when two could be meant.
    """
    exact = set(there)
    by_file: dict[str, list[str]] = {}
    for name in there:
        by_file.setdefault(PurePosixPath(name).name, []).append(name)
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in wanted:
        alike = [name] if name in exact else by_file.get(PurePosixPath(name).name, [])
        if len(alike) > 1:
            raise UserError(f"{name} could be {alike[0]} or {alike[1]}: write it as one of them")
        if alike:
            (found[name],) = alike
            if taken.setdefault(alike[0], name) != name:
                raise UserError(f"{taken[alike[0]]} and {name} would both be {alike[0]}")
    return found
