"""Caption formats, recognised by their content: text -> (photo, caption, split).

Flickr8k, Flickr30k   lines of photo#number<TAB>caption
CSV, TSV              a header with a column for the photo and one for the caption, as on Kaggle;
                      columns separated by commas, tabs, semicolons or bars
COCO                  JSON with `images` and `annotations`
Karpathy's splits     JSON with `images` that have `sentences` and a `split`
JSON Lines, JSON      an object for each photo or caption, one per line or all in a list
"""

import csv
import json
import re
from collections.abc import Iterator
from typing import Any

PHOTO = ("image", "file_name", "filename", "file", "photo", "image_name", "img", "name")
CAPTION = ("caption", "captions", "text", "comment", "sentence", "sentences", "raw")
DELIMITERS = ",\t;|"
NUMBER = re.compile(r"#\d+$")  # at the end of a photo's name, in Flickr's files
Entry = tuple[str, str, str | None]  # photo, caption, and split if the file has one


class Malformed(ValueError):
    """The text is not in a known format; the message gives the reason and the place."""


def entries(text: str) -> Iterator[Entry]:
    """Parse a caption file.

    Args:
        text: the content of the file.

    Yields:
        The photo's name, a caption, and the photo's split or None.

    Raises:
        Malformed: the text is in none of the formats, or breaks the rules of its format.
    """
    if text.lstrip()[:1] in ("{", "["):
        return _json(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = next((line for line in lines if line.strip()), "")
    for delimiter in DELIMITERS:
        try:
            row = next(csv.reader([header], delimiter=delimiter))
        except csv.Error:  # a line too long for a header
            continue
        fields = [field.strip().lower() for field in row]
        if _known(PHOTO, fields) and _known(CAPTION, fields):
            return _table(lines, delimiter, fields)
    return _flickr(lines)


def _known(names: tuple[str, ...], fields: Any) -> str | None:
    """The first of `names` that is among the fields."""
    return next((name for name in names if name in fields), None)


def _flickr(lines: list[str]) -> Iterator[Entry]:
    """Flickr8k's lines: name#number, a tab, the caption."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, tab, caption = line.partition("\t")
            name = NUMBER.sub("", name.strip())
            if not tab or not name:
                expected = "expected name#number, a tab and a caption"
                if number == 1:
                    expected += f", or a header with {PHOTO[0]} and {CAPTION[0]}"
                raise Malformed(f"line {number}: {expected}, got {line[:60]!r}")
            yield name, caption, None


def _table(lines: list[str], delimiter: str, fields: list[str]) -> Iterator[Entry]:
    """CSV and its variants; `fields` is the header in lower case."""
    photo, caption = (fields.index(_known(names, fields) or "") for names in (PHOTO, CAPTION))
    split = fields.index("split") if "split" in fields else None
    reader = csv.reader(
        (line + "\n" for line in lines),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL,
    )
    header_read, read = False, 0
    try:
        for row in reader:
            _check_quotes(lines[read : reader.line_num], delimiter, read + 1)
            read = reader.line_num
            if not row or row == [""]:
                continue
            if not header_read:
                header_read = True
                continue
            if caption == len(fields) - 1 and len(row) > len(fields):
                # A caption that contains commas and is not quoted.
                row = [*row[:caption], delimiter.join(row[caption:])]
            if len(row) != len(fields) or not row[photo].strip():
                raise Malformed(
                    f"line {reader.line_num}: expected {len(fields)} fields "
                    f"({', '.join(fields)}), got {delimiter.join(row)[:60]!r}"
                )
            chosen = None if split is None else row[split].strip()
            yield NUMBER.sub("", row[photo].strip()), row[caption], chosen
    except csv.Error as error:
        raise Malformed(f"line {reader.line_num}: {error}") from error


def _check_quotes(lines: list[str], delimiter: str, first: int) -> None:
    """Raise Malformed if a row of several lines ends within a quote.

    A quote that is never closed would otherwise swallow the following photos. `lines` are those of
    one row, `first` is the number of the first.
    """
    if len(lines) > 1:
        try:
            list(csv.reader([line + "\n" for line in lines], delimiter=delimiter, strict=True))
        except csv.Error as error:
            raise Malformed(f"line {first}: a quote is opened here and not closed") from error


def _json(text: str) -> Iterator[Entry]:
    """JSON and JSON Lines."""
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise Malformed("JSON that is nested too deeply") from error
    except json.JSONDecodeError as error:
        lines = text.replace("\r\n", "\n").split("\n")
        if error.msg != "Extra data" or text.lstrip()[0] != "{":
            place = f"line {error.lineno}, column {error.colno}"
            raise Malformed(f"{place}: broken or cut-off JSON ({error.msg})") from error
        return _objects(_each_line(lines))
    except ValueError as error:
        raise Malformed(f"JSON with a number that cannot be read ({error})") from error
    if isinstance(whole, list):
        return _objects((f"entry {number}", entry) for number, entry in enumerate(whole))
    if "annotations" in whole:
        return _coco(whole)
    if isinstance(whole.get("images"), list):
        return _karpathy(whole["images"])
    return _objects([("line 1", whole)])


def _each_line(lines: list[str]) -> Iterator[tuple[str, Any]]:
    """(place, object) of each line of a JSON Lines file."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                place = f"line {number}, column {error.colno}"
                raise Malformed(f"{place}: broken JSON ({error.msg})") from error
            except RecursionError as error:
                raise Malformed(f"line {number}: JSON that is nested too deeply") from error
            except ValueError as error:
                raise Malformed(f"line {number}: a number cannot be read ({error})") from error


def _text(entry: Any, field: str, place: str) -> str:
    """entry[field], which must be a string."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise Malformed(f"{place}: `{field}` must be a text, not {str(value)[:40]!r}")
    return value


def _objects(objects: Any) -> Iterator[Entry]:
    """Objects that name a photo and its caption or captions; `objects` are (place, object)."""
    for place, entry in objects:
        photo = _known(PHOTO, entry) if isinstance(entry, dict) else None
        caption = _known(CAPTION, entry) if photo else None
        if not photo or not caption:
            shown = ", ".join(entry) if isinstance(entry, dict) else type(entry).__name__
            raise Malformed(
                f"{place}: needs a photo ({PHOTO[0]} or {PHOTO[1]}) and its caption or captions, "
                f"has {shown[:60]}"
            )
        split = _text(entry, "split", place) if "split" in entry else None
        texts = entry[caption] if isinstance(entry[caption], list) else [entry[caption]]
        for text in texts:
            if isinstance(text, dict) and "raw" in text:
                text = text["raw"]
            yield (
                NUMBER.sub("", _text(entry, photo, place)),
                _text({caption: text}, caption, place),
                split,
            )


def _coco(whole: dict) -> Iterator[Entry]:
    """COCO's captions_*.json."""
    images = whole.get("images")
    if not isinstance(images, list) or not isinstance(whole["annotations"], list):
        raise Malformed("`images` and `annotations` must be lists, as in COCO's captions_*.json")
    names: dict[int, str] = {}
    for number, image in enumerate(images):
        place = f"images[{number}]"
        name, image_id = _text(image, "file_name", place), _number(image, "id", place)
        if names.setdefault(image_id, name) != name:
            raise Malformed(f"{place}: {name} and {names[image_id]} have the same id {image_id}")
    for number, annotation in enumerate(whole["annotations"]):
        place = f"annotations[{number}]"
        image = _number(annotation, "image_id", place)
        if image not in names:
            raise Malformed(f"{place}: there is no image with the id {image}")
        if "caption" not in annotation:
            kind = ", ".join(annotation)
            raise Malformed(f"{place}: has no `caption` but {kind[:60]}: use captions_*.json")
        yield names[image], _text(annotation, "caption", place), None


def _number(entry: Any, field: str, place: str) -> int:
    """entry[field], which must be an integer."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if type(value) is not int:
        raise Malformed(f"{place}: `{field}` must be a whole number, not {str(value)[:40]!r}")
    return value


def _karpathy(images: list) -> Iterator[Entry]:
    """Karpathy's dataset_*.json."""
    for number, image in enumerate(images):
        place = f"images[{number}]"
        name, split = (_text(image, field, place) for field in ("filename", "split"))
        if "filepath" in image:
            name = f"{_text(image, 'filepath', place)}/{name}"
        sentences = image.get("sentences")
        if not isinstance(sentences, list):
            raise Malformed(f"{place}: `sentences` must be a list")
        for sentence in sentences:
            yield name, _text(sentence, "raw", f"{place}.sentences"), split
