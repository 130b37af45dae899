"""Captions and splits from files, in the form in which Flickr8k comes."""

import re
from pathlib import Path

from minicap.data.vocabulary import tokenise
from minicap.errors import UserError
from minicap.files import read_lines


def read_captions(path: Path) -> dict[str, list[str]]:
    """Photo name -> its captions, from lines `name.jpg#number<TAB>caption`.

    Captions without a single word are left out. UserError: no file, no captions, a line without
    a tab or a name.
    """
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path, "caption file"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        name = re.sub(r"#\d+$", "", name.strip())
        if not tab or not name:
            expected = "expected name#number, a tab and a caption"
            raise UserError(f"{path}, line {number}: {expected}, got {line[:60]!r}")
        if tokenise(caption):
            captions.setdefault(name, []).append(caption.strip())
    if not captions:
        raise UserError(f"{path}: no captions in this file")
    return captions


def read_names(path: Path) -> list[str]:
    """Photo names, one a line, each once. UserError: no file, or none in it."""
    lines = map(str.strip, read_lines(path, "list of photos"))
    names = list(dict.fromkeys(line for line in lines if line))
    if not names:
        raise UserError(f"{path}: no photo names in this file")
    return names
