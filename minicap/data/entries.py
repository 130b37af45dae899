"""What caption files have in common: entries, names of fields, and rows that cannot be read."""

import re
from dataclasses import dataclass, field

NUMBER = re.compile(r"#\d+$")  # at the end of a photo's name, in Flickr's files
Entry = tuple[str, str, str | None]  # photo, caption, and split if the file has one
ALLOWED, ALLOWED_FRACTION = 10, 0.01  # bad rows that are skipped: whichever is more

# Field names that people use, in the order of preference if a file has several of them.
PHOTO = (
    *("file_name", "filename", "image", "image_name", "img_name", "img", "photo", "photo_name"),
    *(
        "file",
        "file_path",
        "filepath",
        "image_path",
        "img_path",
        "photo_path",
        "path",
        "image_file",
    ),
    *("image_file", "image_id", "img_id", "photo_id", "name", "id"),
)
CAPTION = (
    *(
        "caption",
        "captions",
        "text",
        "texts",
        "comment",
        "comments",
        "sentence",
        "sentences",
        "raw",
    ),
    *(
        "raw",
        "description",
        "descriptions",
        "desc",
        "caption_text",
        "image_caption",
        "title",
        "label",
    ),
)
NUMBERED = re.compile(r"(caption|comment|sentence|text|description|desc|title|raw)s?_?\d+$")


class Malformed(ValueError):
    """The text is not in a known format; the message gives the reason and the place."""


@dataclass
class Problems:
    """Rows that cannot be read as they stand.

    Attributes:
        skipped: "line 7: reason" of each row that is left out.
        repaired: the same for rows that are read in another way than their format says.
        rows: number of rows that were read.
    """

    skipped: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    rows: int = 0

    def check(self, strict: bool) -> None:
        """Raise Malformed if there are more bad rows than a good file may have."""
        allowed = 0 if strict else max(ALLOWED, int(ALLOWED_FRACTION * self.rows))
        bad = self.skipped + (self.repaired if strict else [])
        if len(self.skipped) > allowed or (strict and bad) or (self.skipped and not self.rows):
            more = f" (and {len(bad) - 1} more like this)" if len(bad) > 1 else ""
            raise Malformed(bad[0] + more)


def normalised(name: str) -> str:
    """A field's name in lower case, its words joined by underscores."""
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def photo_field(fields: list[str]) -> str | None:
    """The field that names the photo."""
    return next((name for name in PHOTO if name in fields), None)


def caption_fields(fields: list[str]) -> list[str]:
    """The fields that hold captions: one, or several with numbers, like caption_0 and caption_1."""
    single = next((name for name in CAPTION if name in fields), None)
    return [single] if single else [name for name in fields if NUMBERED.fullmatch(name)]
