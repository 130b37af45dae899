"""COCO's results format: a JSON list of {"image_id": ..., "caption": ...}.

COCO identifies an image by a number, other data sets by its file name. An image's id is

1. its number in the caption file, if that is in COCO's format;
2. else the number in a name such as COCO_val2014_000000000139.jpg or 000000000139.jpg;
3. else the name itself.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from minicap.data.names import find_names
from minicap.utils.errors import UserError
from minicap.utils.files import read_text

Id = int | str
COCO = re.compile(r"(?:COCO_[a-z]+20\d\d_)?([0-9]{12})")
SURROGATE = re.compile("[\ud800-\udfff]")  # valid in JSON, but not in UTF-8


def coco_numbers(paths: Sequence[Path]) -> dict[str, int]:
    """Read the images' ids from caption files in COCO's format.

    Args:
        paths: caption files in any format.

    Returns:
        File name -> id; empty if a file is in another format.
    """
    numbers: dict[str, int] = {}
    try:
        for path in paths:
            images = json.loads(read_text(path, "caption file"))["images"]
            numbers |= {image["file_name"]: image["id"] for image in images}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return numbers


def image_ids(names: Iterable[str], numbers: Mapping[str, int]) -> dict[str, Id]:
    """Choose an id for each image; see the rules above.

    Args:
        names: of the images.
        numbers: from `coco_numbers`.

    Returns:
        Name -> id. If two ids would be equal, every id is the image's name.
    """
    names = list(names)
    known = find_names(names, numbers)

    def number(name: str) -> Id:
        if name in known:
            return numbers[known[name]]
        found = _number(name)
        return name if found is None else found

    ids = {name: number(name) for name in names}
    return ids if len(set(ids.values())) == len(ids) else {name: name for name in names}


def _number(name: str) -> int | None:
    """The number in a file name of COCO's; None for other names."""
    found = COCO.fullmatch(PurePosixPath(name).stem)
    return int(found[1]) if found else None


def results_text(captions: Mapping[str, str], ids: Mapping[str, Id]) -> str:
    """Format captions as a results file, one line per caption.

    Args:
        captions: image -> caption.
        ids: image -> id, from `image_ids`.
    """
    entries = [{"image_id": ids[name], "caption": text} for name, text in captions.items()]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f"[{lines}]\n"


def read_results(path: Path, ids: Mapping[str, Id]) -> dict[str, str]:
    """Read a results file.

    The file may identify an image by its id (as a number or a string), by its name, or by a name
    that contains its number.

    Args:
        path: the file.
        ids: image -> id of the images that must have a caption, from `image_ids`.

    Returns:
        Image -> caption, in the file's order.

    Raises:
        UserError: the file is missing, is not valid JSON, has a missing field or one of the wrong
            type, an unknown image, an image twice, or no caption for an image. The message gives
            the place.
    """
    text = read_text(path, "results file")
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}, {place}: broken or cut-off JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of 5,000 digits
        raise UserError(f"{path}: JSON that cannot be read ({error})") from error
    wanted = 'expected a list of {"image_id": ..., "caption": ...}'
    if not isinstance(entries, list):
        raise UserError(f"{path}: {wanted}, got {text.strip()[:40]!r}")
    if not entries:
        raise UserError(f"{path}: no captions in this file")
    for number, entry in enumerate(entries):
        for field, kinds, kind in (
            ("image_id", (int, str), "a whole number or a text"),
            ("caption", (str,), "a text"),
        ):
            if not isinstance(entry, dict) or field not in entry:
                raise UserError(f"{path}, entry {number}: no `{field}`: {wanted}")
            if type(entry[field]) not in kinds:
                shown = json.dumps(entry[field])[:40]
                raise UserError(f"{path}, entry {number}: `{field}` must be {kind}, not {shown}")
            if SURROGATE.search(str(entry[field])):
                raise UserError(f"{path}, entry {number}: `{field}` has half a character (\\ud...)")
    by_id: dict[Id | None, str] = {id_: name for name, id_ in ids.items()}
    by_text = {str(id_): name for name, id_ in ids.items()}
    texts = dict.fromkeys(e["image_id"] for e in entries if isinstance(e["image_id"], str))
    as_names = find_names(texts, ids)
    captions: dict[str, str] = {}
    places: dict[str, int] = {}
    unknown = []
    for number, entry in enumerate(entries):
        id_ = entry["image_id"]
        name = by_id.get(id_) or as_names.get(str(id_))
        name = name or by_text.get(str(id_)) or by_id.get(_number(str(id_)))
        if name is None:
            unknown.append(id_)
        elif name in places:
            raise UserError(
                f"{path}, entry {number}: image_id {id_!r} occurs twice, first in entry "
                f"{places[name]}: keep one caption for each image"
            )
        else:
            captions[name], places[name] = entry["caption"], number
    if unknown:
        shown = ", ".join(map(repr, unknown[:3]))
        raise UserError(
            f"{path}: not among the {len(ids):,} evaluated images ({next(iter(ids))}, ...): "
            f"image_id {shown} ({len(unknown):,} in all); choose other images with --captions"
        )
    if missing := [name for name in ids if name not in captions]:
        raise UserError(
            f"{path}: no caption for {', '.join(missing[:3])} "
            f"({len(missing):,} of the {len(ids):,} evaluated images)"
        )
    return captions
