"""Generated captions of many photos in one file: CSV, JSON or JSON Lines.

While captions are generated, OUT.part collects them: a line of JSON that describes the task, then a
line for each group of photos. So an interruption at any moment costs one group. When all groups are
there, OUT.part becomes OUT.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from minicap.utils.errors import UserError
from minicap.utils.files import exclusive, replacing
from minicap.utils.ranks import world

Row = Mapping[str, Any]  # "photo", "caption" and perhaps "score"


@dataclass(frozen=True)
class CaptionFile:
    """A file of captions that is being written.

    Attributes:
        out: the file; its ending gives the format.
        task: describes what is generated, to compare when the task is resumed.
        groups: number of groups that an earlier run has written.
    """

    out: Path
    task: dict[str, Any]
    groups: int = 0

    @classmethod
    @contextmanager
    def open(cls, out: Path, task: dict[str, Any]) -> Iterator["CaptionFile"]:
        """Begin or resume a file of captions, which stays locked until the context ends.

        Raises:
            UserError: the ending is unknown; the file exists; another process writes it; or
                OUT.part belongs to another task.
        """
        world().first(lambda: check_output(out))
        lock = out.with_name(f".{out.name}.lock")
        with exclusive(lock, f"{out}: another process is writing this file"):
            file = cls(out, task)
            yield replace(file, groups=world().first(file._resume))

    @property
    def part(self) -> Path:
        """The file that collects the groups."""
        return self.out.with_name(f"{self.out.name}.part")

    @property
    def skipped(self) -> Path:
        """The list of photos without captions: JSON Lines with "photo" and "reason"."""
        return self.out.with_name(f"{self.out.name}.skipped.jsonl")

    def _resume(self) -> int:
        """Begin the part file, or cut off its incomplete end; return the number of groups in it."""
        if not self.part.exists():
            with replacing(self.part) as temporary:
                temporary.write_text(json.dumps(self.task) + "\n")
            return 0
        with open(self.part, "rb") as file:
            try:
                task = json.loads(file.readline())
            except ValueError:
                task = None
            if task != self.task:
                old = task if isinstance(task, dict) else {}
                changed = (key for key in self.task if old.get(key) != self.task[key])
                raise UserError(
                    f"{self.part}: was begun with another {next(changed, 'version')}; delete it, "
                    "or choose another --out"
                )
            whole, lines = file.tell(), 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole, lines = whole + len(line), lines + 1
        with open(self.part, "r+b") as file:
            file.truncate(whole)
        return lines

    def append(self, rows: Sequence[Row], unusable: Mapping[str, str]) -> None:
        """Write a group.

        Args:
            rows: its captions.
            unusable: photo -> the reason why it has no caption.
        """
        with open(self.part, "a") as file:
            file.write(json.dumps({"rows": rows, "unusable": unusable}) + "\n")

    def finish(self) -> tuple[int, int]:
        """Make the file of its groups.

        Returns:
            The number of photos with captions, and without.
        """
        captioned = skipped = 0
        with _text(self.skipped) as bad, _text(self.out) as file:
            for group in self._groups():
                captioned += len({row["photo"] for row in group["rows"]})
                skipped += len(group["unusable"])
                pairs = group["unusable"].items()
                _jsonl(bad, ({"photo": name, "reason": reason} for name, reason in pairs))
            rows = (row for group in self._groups() for row in group["rows"])
            WRITERS[self.out.suffix.lower()](file, rows)
        if not skipped:
            self.skipped.unlink()
        self.part.unlink()
        return captioned, skipped

    def _groups(self) -> Iterator[dict]:
        with open(self.part) as file:
            next(file)
            yield from map(json.loads, file)


def check_output(out: Path) -> None:
    """Raise UserError if captions cannot be written to a file: its ending is unknown, or it exists.

    Args:
        out: the file.
    """
    if out.suffix.lower() not in WRITERS:
        raise UserError(f"--out {out}: the name must end in {', '.join(WRITERS)}")
    if out.exists():
        raise UserError(f"{out} exists: delete it, or choose another --out")


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file that replaces `path` when it is complete."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _csv(file: TextIO, rows: Iterator[Row]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(rows):
        if not number:
            writer.writerow(row)  # the names of the columns
        writer.writerow(row.values())


def _jsonl(file: TextIO, rows: Iterator[Row]) -> None:
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _json(file: TextIO, rows: Iterator[Row]) -> None:
    """A list with one object per line."""
    file.write("[")
    for number, row in enumerate(rows):
        file.write(("," if number else "") + "\n" + json.dumps(row, ensure_ascii=False))
    file.write("\n]\n")


WRITERS: dict[str, Callable[[TextIO, Iterator[Row]], None]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
