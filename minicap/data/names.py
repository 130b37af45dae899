"""Match photo names that differ in folders, slashes, case, ending, Unicode form or prefix."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable

from minicap.utils.errors import UserError

ENDING = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|heic|heif|avif|npy)$")
COCO = re.compile(r"^coco_(train|val|test)20\d\d_(?=\d)")  # COCO_val2014_000000000139.jpg


def path(name: str) -> str:
    """The name with forward slashes, in lower case and composed Unicode."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").casefold()
    return re.sub(r"^(\./)+", "", name.strip())


def file(name: str) -> str:
    """The same without folders."""
    return path(name).rpartition("/")[2]


def stem(name: str) -> str:
    """The same without the ending of an image file."""
    return ENDING.sub("", file(name))


def coco(name: str) -> str:
    """The same without COCO's prefix, and without the zeros before a number."""
    bare = COCO.sub("", stem(name))
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


# From strict to lenient. A name is matched by the first form in which it has a match.
FORMS: tuple[Callable[[str], str], ...] = (str, path, file, stem, coco)


def find_names(wanted: Iterable[str], available: Collection[str]) -> dict[str, str]:
    """Find names among others.

    An exact match comes first, then one that differs in slashes, case or Unicode form, then in
    folders, then in the ending, then in COCO's prefix.

    Args:
        wanted: photo names, for example of a caption file.
        available: the names to find them among, for example of a folder.

    Returns:
        Wanted name -> available name. Photos without a match are left out.

    Raises:
        UserError: a name has two matches, or two names have the same match.
    """
    tables: list[dict[str, list[str]]] = []
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in wanted:
        for level, form in enumerate(FORMS):
            if level == len(tables):  # made when needed: most names match exactly
                tables.append({})
                for each in available:
                    tables[level].setdefault(form(each), []).append(each)
            matches = tables[level].get(form(name), [])
            if len(matches) > 1:
                raise UserError(
                    f"{name} could be {matches[0]} or {matches[1]}: use one of these names"
                )
            if matches:
                found[name] = matches[0]
                if taken.setdefault(matches[0], name) != name:
                    raise UserError(f"{taken[matches[0]]} and {name} would both be {matches[0]}")
                break
    return found
