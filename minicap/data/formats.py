"""Caption formats, recognised by their content: text -> (photo, caption, split).

Flickr8k, Flickr30k   lines of photo#number<TAB>caption
tables                a header with columns for the photo and for captions: see `tables`
JSON                  COCO, Karpathy's splits, neuraltalk2 and more: see `json_forms`
"""

from collections.abc import Iterator

from minicap.data import json_forms, tables
from minicap.data.entries import NUMBER, Entry, Malformed, Problems


def entries(text: str, problems: Problems) -> Iterator[Entry]:
    """Parse a caption file.

    Args:
        text: the content of the file.
        problems: collects rows that cannot be read.

    Yields:
        The photo's name, a caption, and the photo's split or None.

    Raises:
        Malformed: the text is in none of the formats.
    """
    if text.lstrip()[:1] in ("{", "["):
        return json_forms.entries(text, problems)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = tables.find_header(lines)
    return tables.entries(lines, header, problems) if header else _flickr(lines, problems)


def _flickr(lines: list[str], problems: Problems) -> Iterator[Entry]:
    """Flickr8k's lines: name#number, a tab, the caption."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, tab, caption = line.partition("\t")
            name = NUMBER.sub("", name.strip())
            if tab and name:
                problems.rows += 1
                yield name, caption, None
                continue
            expected = "expected name#number, a tab and a caption"
            if not problems.rows:
                expected += ", or a header with image and caption"
                raise Malformed(f"line {number}: {expected}, got {line[:60]!r}")
            problems.skipped.append(f"line {number}: {expected}, got {line[:60]!r}")
