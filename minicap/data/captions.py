"""Caption files in any common format, and lists of photos."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from minicap.data.formats import Malformed, entries
from minicap.utils.errors import UserError
from minicap.utils.files import read_lines, read_text

# What the files call the three splits. In Karpathy's splits, restval is the part of COCO's val
# that belongs to the training set.
SPLITS = {
    "train": "train", "training": "train", "restval": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
    "test": "test",
}  # fmt: skip
WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Captions:
    """The content of a caption file.

    Attributes:
        texts: photo -> its captions, in the file's order.
        splits: photo -> "train", "dev" or "test"; empty if the file has no splits.
        wordless: the number of captions that were left out because they contain no word.
    """

    texts: dict[str, list[str]]
    splits: dict[str, str]
    wordless: int


def read_captions(path: Path) -> Captions:
    """Read a caption file in one of the formats of `minicap.data.formats`.

    Args:
        path: text or gzipped text.

    Raises:
        UserError: the file is missing, has no captions, is in an unknown or broken format, or has
            a photo in two splits or in none. The message gives the place.
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
        raise UserError(f"{path}: {min(missing)} has no split, but other photos have one")
    return Captions(texts, splits, wordless)


def read_names(path: Path) -> list[str]:
    """Read a list of photos: one name per line, repeated names once.

    Raises:
        UserError: the file is missing or has no names.
    """
    lines = map(str.strip, read_lines(path, "list of photos"))
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise UserError(f"{path}: no photo names in this file")
    return names


def find_names(wanted: Iterable[str], available: Collection[str]) -> dict[str, str]:
    """Match photo names with and without their folder.

    A caption file may have 42.jpg where a folder of photos has val2017/42.jpg, or the other way
    round. An exact match comes first, then the file name without its folder.

    Args:
        wanted: photo names.
        available: the names to find them among.

    Returns:
        Wanted name -> available name. Photos without a match are left out.

    Raises:
        UserError: a name has two matches, or two names have the same match.
    """
    exact = set(available)
    by_file: dict[str, list[str]] = {}
    for name in available:
        by_file.setdefault(PurePosixPath(name).name, []).append(name)
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in wanted:
        matches = [name] if name in exact else by_file.get(PurePosixPath(name).name, [])
        if len(matches) > 1:
            raise UserError(f"{name} could be {matches[0]} or {matches[1]}: use one of these names")
        if matches:
            (found[name],) = matches
            if taken.setdefault(matches[0], name) != name:
                raise UserError(f"{taken[matches[0]]} and {name} would both be {matches[0]}")
    return found
