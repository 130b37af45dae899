"""Captions in JSON.

COCO                  `images` with ids and file names, and `annotations` with captions
Karpathy's splits     `images` that have `sentences` and perhaps a `split`
objects               one for each photo or caption: JSON Lines, or a list (neuraltalk2's input)
a dictionary          photo -> its caption or captions
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from minicap.data.entries import (
    NUMBER,
    Entry,
    Malformed,
    Problems,
    caption_fields,
    normalised,
    photo_field,
)


def entries(text: str, problems: Problems) -> Iterator[Entry]:
    """Parse JSON or JSON Lines; see `minicap.data.formats.entries`."""
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise Malformed("JSON that is nested too deeply") from error
    except json.JSONDecodeError as error:
        if error.msg != "Extra data" or text.lstrip()[0] != "{":
            place = f"line {error.lineno}, column {error.colno}"
            raise Malformed(f"{place}: broken or cut-off JSON ({error.msg})") from error
        lines = text.replace("\r\n", "\n").split("\n")
        return _collect(_each_line(lines, problems), _object, problems)
    except ValueError as error:
        raise Malformed(f"JSON with a number that cannot be read ({error})") from error
    if isinstance(whole, list):
        return _collect(_numbered("entry ", whole), _object, problems)
    annotations, images = whole.get("annotations"), whole.get("images")
    if "annotations" in whole:
        if isinstance(images, list) and isinstance(annotations, list):
            return _coco(images, annotations, problems)
        if "images" not in whole and isinstance(annotations, list) and _named(annotations):
            return _collect(_numbered("annotations[", annotations, "]"), _object, problems)
        missing = "`images` is missing" if "images" not in whole else "both must be lists"
        raise Malformed(
            f"`images` and `annotations` belong together in COCO's files, but {missing}"
        )
    if isinstance(images, list):
        read = (
            _karpathy if any(isinstance(i, dict) and "sentences" in i for i in images) else _object
        )
        return _collect(_numbered("images[", images, "]"), read, problems)
    fields = list(map(normalised, whole))
    if photo_field(fields) and caption_fields(fields):
        return _collect([("line 1", whole)], _object, problems)
    pairs = [(repr(name), {"image": name, "captions": some}) for name, some in whole.items()]
    return _collect(pairs, _object, problems)


def _numbered(before: str, items: list, after: str = "") -> list[tuple[str, Any]]:
    """(place, item) of each item of a list."""
    return [(f"{before}{number}{after}", item) for number, item in enumerate(items)]


def _named(objects: list) -> bool:
    """Whether the first object names its photo by something else than a number."""
    first = objects[0] if objects and isinstance(objects[0], dict) else {}
    photo = photo_field(list(map(normalised, first)))
    return photo is not None and not isinstance(first.get(photo), int)


def _collect(objects: Iterable[tuple[str, Any]], read: Any, problems: Problems) -> Iterator[Entry]:
    """Read (place, object) one by one, and skip those that cannot be read."""
    for place, item in objects:
        try:
            found = list(read(place, item))
        except Malformed as error:
            problems.skipped.append(str(error))
        else:
            problems.rows += 1
            yield from found


def _each_line(lines: list[str], problems: Problems) -> Iterator[tuple[str, Any]]:
    """(place, object) of each line of a JSON Lines file."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                item = json.loads(line)
            except RecursionError:
                problems.skipped.append(f"line {number}: JSON that is nested too deeply")
            except ValueError as error:
                reason = getattr(error, "msg", error)
                problems.skipped.append(f"line {number}: broken JSON ({reason})")
            else:
                yield f"line {number}", item


def _text(entry: Any, field: str, place: str) -> str:
    """entry[field], which must be a text; a whole number will do as a photo's name."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise Malformed(f"{place}: `{field}` must be a text, not {str(value)[:40]!r}")
    return value


def _sentence(item: Any, place: str) -> str:
    """A caption: a text, or an object with `raw`, `caption` or `tokens`."""
    if isinstance(item, dict):
        names = caption_fields(list(item))
        if names and isinstance(item[names[0]], str):
            return item[names[0]]
        if isinstance(item.get("tokens"), list):
            return " ".join(map(str, item["tokens"]))
    if not isinstance(item, str):
        raise Malformed(f"{place}: a caption must be a text, not {str(item)[:40]!r}")
    return item


def _object(place: str, entry: Any) -> Iterator[Entry]:
    """An object that names a photo and its caption or captions."""
    fields = {normalised(name): name for name in entry} if isinstance(entry, dict) else {}
    photo, captions = photo_field(list(fields)), caption_fields(list(fields))
    if not photo or not captions:
        shown = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
        raise Malformed(
            f"{place}: needs a photo (image or file_name) and its caption or captions, "
            f"has {shown[:60]}"
        )
    split = _text(entry, "split", place) if "split" in entry else None
    value = entry[fields[photo]]
    name = str(value) if type(value) is int else _text(entry, fields[photo], place)
    for caption in captions:
        some = entry[fields[caption]]
        for item in some if isinstance(some, list) else [some]:
            yield NUMBER.sub("", name), _sentence(item, place), split


def _karpathy(place: str, image: Any) -> Iterator[Entry]:
    """An image of Karpathy's dataset_*.json."""
    name = _text(image, "filename", place)
    split = _text(image, "split", place) if "split" in image else None
    if "filepath" in image:
        name = f"{_text(image, 'filepath', place)}/{name}"
    sentences = image.get("sentences")
    if not isinstance(sentences, list):
        raise Malformed(f"{place}: `sentences` must be a list")
    for sentence in sentences:
        yield name, _sentence(sentence, f"{place}.sentences"), split


def _coco(images: list, annotations: list, problems: Problems) -> Iterator[Entry]:
    """COCO's captions_*.json. Ids are whole numbers or texts."""
    names: dict[int | str, str] = {}
    for place, image in _numbered("images[", images, "]"):
        name, image_id = _text(image, "file_name", place), _id(image, "id", place)
        if names.setdefault(image_id, name) != name:
            raise Malformed(f"{place}: {name} and {names[image_id]} have the same id {image_id}")

    def read(place: str, annotation: Any) -> Iterator[Entry]:
        image_id = _id(annotation, "image_id", place)
        if image_id not in names:
            raise Malformed(f"{place}: there is no image with the id {image_id}")
        if "caption" not in annotation:
            kind = ", ".join(annotation)
            raise Malformed(f"{place}: has no `caption` but {kind[:60]}: use captions_*.json")
        yield names[image_id], _text(annotation, "caption", place), None

    yield from _collect(_numbered("annotations[", annotations, "]"), read, problems)


def _id(entry: Any, field: str, place: str) -> int | str:
    """entry[field], which must be a whole number or a text."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if type(value) is int or isinstance(value, str):
        return value
    raise Malformed(f"{place}: `{field}` must be a whole number or a text, not {str(value)[:40]!r}")
