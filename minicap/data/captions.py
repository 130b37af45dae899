"""Caption files in any common format, and lists of photos."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicap.data.entries import Entry, Malformed, Problems
from minicap.data.formats import entries
from minicap.data.names import ENDING
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
        notes: messages about captions that were left out, and rows that were repaired.
    """

    texts: dict[str, list[str]]
    splits: dict[str, str]
    notes: list[str]


def read_captions(path: Path, strict: bool = False) -> Captions:
    """Read captions: a file in one of the formats of `minicap.data.formats`, or a folder.

    A few rows that cannot be read are skipped and reported: up to ten, or 1 % of all rows.

    Args:
        path: text or gzipped text; or a folder of photos with a .txt file next to each, which has
            one caption per line.
        strict: refuse files with bad rows.

    Raises:
        UserError: the file is missing, has no captions, is in an unknown or broken format, has too
            many bad rows, or has a photo in two splits or in none. The message gives the place.
    """
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    wordless, problems = 0, Problems()
    try:
        if path.is_dir():
            found = _sidecars(path)
        else:
            found = entries(read_text(path, "caption file"), problems)
        for name, caption, split in found:
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
        problems.check(strict)
    except Malformed as error:
        raise UserError(f"{path}: {error}".replace(": line ", ", line ", 1)) from error
    if not texts:
        raise UserError(f"{path}: no captions in this {'folder' if path.is_dir() else 'file'}")
    if splits and (missing := texts.keys() - splits.keys()):
        raise UserError(f"{path}: {min(missing)} has no split, but other photos have one")
    return Captions(texts, splits, notes(path, problems, wordless))


def read_all_captions(paths: Sequence[Path], strict: bool = False) -> Captions:
    """Read one or more caption files with `read_captions`, as if they were one.

    Raises:
        UserError: as for `read_captions`; a photo is in two splits; or only some files have splits.
    """
    parts = [read_captions(path, strict) for path in paths]
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for path, part in zip(paths, parts, strict=True):
        if bool(part.splits) != bool(parts[0].splits):
            with_splits, without = (path, paths[0]) if part.splits else (paths[0], path)
            raise UserError(
                f"{with_splits} has splits and {without} has none: name the photos of each split "
                "with --train-split and --dev-split, or give files of one kind"
            )
        for name, captions in part.texts.items():
            texts.setdefault(name, []).extend(captions)
        for name, split in part.splits.items():
            if splits.setdefault(name, split) != split:
                raise UserError(f"{path}: {name} is in the splits {splits[name]} and {split}")
    return Captions(texts, splits, [note for part in parts for note in part.notes])


def notes(path: Path, problems: Problems, wordless: int) -> list[str]:
    """Describe what was left out or repaired, a line for each row."""
    found = [f"{path}: skipped {place}" for place in problems.skipped]
    found += [f"{path}: read without quotes: {place}" for place in problems.repaired]
    if wordless:
        found.append(f"{wordless:,} captions without a word are left out")
    return found


def _sidecars(folder: Path) -> Iterator[Entry]:
    """The captions in .txt files next to photos of the same name."""
    for photo in sorted(folder.rglob("*")):
        text = photo.with_suffix(".txt")
        if ENDING.search(photo.name.lower()) and text.is_file():
            name = photo.relative_to(folder).as_posix()
            for caption in read_lines(text, "captions"):
                if caption.strip():
                    yield name, caption, None


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
