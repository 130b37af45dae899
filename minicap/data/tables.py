"""Captions in tables: CSV and its variants, quoted or not, as on Kaggle or from a spreadsheet."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

from minicap.data.entries import (
    NUMBER,
    Entry,
    Problems,
    caption_fields,
    normalised,
    photo_field,
)

DELIMITERS = ",\t;|"
EXCEL = re.compile(r'"?sep=(.)"?$')  # Excel's first line, which names the delimiter
LONGEST = 100  # lines of one row


@dataclass(frozen=True)
class Header:
    """The first row of a table.

    Attributes:
        line: its index in the lines.
        delimiter: what separates fields.
        fields: their normalised names.
    """

    line: int
    delimiter: str
    fields: list[str]


def find_header(lines: list[str]) -> Header | None:
    """Find the row that names a column for the photo and one for captions, or None."""
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    delimiters = DELIMITERS
    if excel := EXCEL.match(lines[first].strip()):
        first, delimiters = first + 1, excel[1]
    if first == len(lines):
        return None
    for delimiter in delimiters:
        try:
            row = next(csv.reader([lines[first]], delimiter=delimiter), [])
        except csv.Error:  # a line too long for a header
            continue
        fields = list(map(normalised, row))
        photo, captions = photo_field(fields), caption_fields(fields)
        if photo and captions and photo not in captions:
            return Header(first, delimiter, fields)
    return None


def entries(lines: list[str], header: Header, problems: Problems) -> Iterator[Entry]:
    """Read the rows below the header.

    A row may have several lines if a quoted field has line breaks. But a quote that is not closed
    must not swallow the rows that follow: if one of the lines looks like a row, the quote is an
    ordinary character, and reported.
    """
    fields = header.fields
    photo = fields.index(photo_field(fields) or "")
    captions = [fields.index(name) for name in caption_fields(fields)]
    split = fields.index("split") if "split" in fields else None
    number = header.line + 1
    while number < len(lines):
        start, row, number = number, *_row(lines, number, header, photo, problems)
        if not row or not any(field.strip() for field in row):
            continue
        last = len(fields) - 1
        if captions == [last] and len(row) > len(fields):  # an unquoted caption with delimiters
            row = [*row[:last], header.delimiter.join(row[last:])]
        if len(row) != len(fields) or not row[photo].strip():
            problems.skipped.append(
                f"line {start + 1}: expected {len(fields)} fields ({', '.join(fields)}), "
                f"got {header.delimiter.join(row)[:60]!r}"
            )
            continue
        problems.rows += 1
        name = NUMBER.sub("", row[photo].strip())
        chosen = None if split is None else row[split].strip()
        filled = [row[place] for place in captions if row[place].strip()]
        for caption in filled or [""]:
            yield name, caption, chosen


def _row(
    lines: list[str], start: int, header: Header, photo: int, problems: Problems
) -> tuple[list[str], int]:
    """Read the row that starts at a line. Returns its fields and the index of the next row."""
    plain = lines[start].split(header.delimiter)
    if header.delimiter == "|" or '"' not in lines[start]:
        return plain, start + 1
    example = _extension(plain[photo]) if len(plain) > photo else ""
    for end in range(start + 1, min(start + LONGEST, len(lines)) + 1):
        block = lines[start:end]
        if len(block) > 1 and _looks_like_a_row(block[-1], header, photo, example):
            break
        try:
            (row,) = csv.reader(
                [line + "\n" for line in block], delimiter=header.delimiter, strict=True
            )
            return row, end
        except csv.Error as error:
            if "unexpected end" not in str(error):  # a quote in the middle of a field
                try:
                    (row,) = csv.reader(block[:1], delimiter=header.delimiter)
                    return row, start + 1
                except (csv.Error, ValueError):
                    break
        except ValueError:
            break
    problems.repaired.append(f"line {start + 1}: a quote is opened here and not closed")
    return plain, start + 1


def _extension(name: str) -> str:
    """The ending of a file name, in lower case."""
    return NUMBER.sub("", name.strip().strip('"')).lower().rpartition(".")[2][-5:]


def _looks_like_a_row(line: str, header: Header, photo: int, example: str) -> bool:
    """Whether a line has enough fields and a photo's name where one belongs."""
    fields = line.split(header.delimiter)
    return (
        len(fields) >= len(header.fields)
        and " " not in fields[photo].strip()
        and _extension(fields[photo]) == example
    )
