"""A feature store: a folder of features that survives an interruption at any moment.

    features.npy   (P, F) float16
    done.npy       (P,) uint8, the state of each photo: TODO, DONE or SKIPPED
    skipped.jsonl  a line for each skipped photo, with the reason
    store.json     the photos' names and a description of the encoder

Features are synced to the disk before their rows are marked as done, so a marked row is always
there. Rows that are not marked are encoded again, in the same batches, and the result is bitwise
equal to that of an uninterrupted run.

The ranks of an MPI job write to the same files, each its own rows, so they need no locks. Only the
reasons of rank 1, 2, ... are in files of their own, skipped-1.jsonl, ..., until the end.
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy

from minicap.utils.errors import UserError
from minicap.utils.files import read_text, write_text
from minicap.utils.ranks import world

KIND, FORMAT = "minicap feature store", 1
STORE, FEATURES, MARKS, REASONS = "store.json", "features.npy", "done.npy", "skipped.jsonl"
LOCK = ".lock"  # of the process that encodes
TODO, DONE, SKIPPED = range(3)


@dataclass(frozen=True)
class FeatureStore:
    """A feature store on the disk.

    Attributes:
        folder: its path.
        names: P photos.
        encoder: the encoder's description, from `Encoder.about`.
        batch: the number of photos that are encoded together.
        marks: (P,) uint8: TODO, DONE or SKIPPED.
    """

    folder: Path
    names: list[str]
    encoder: dict
    batch: int
    marks: numpy.ndarray

    @classmethod
    def create(
        cls, folder: Path, names: Sequence[str], encoder: Mapping, batch: int
    ) -> "FeatureStore":
        """Create an empty store and allocate the disk space for all features.

        Args:
            folder: must be missing or empty, or hold what an interrupted `create` left.
            names: P photos.
            encoder: the encoder's description, from `Encoder.about`.
            batch: the number of photos that are encoded together.

        Raises:
            UserError: the disk is too full, or the folder holds other files.
        """
        ours = {STORE, FEATURES, MARKS, REASONS, LOCK}
        there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        temporary = f".{STORE}."  # a killed process may have left a temporary file of STORE
        foreign = [name for name in there if name not in ours and not name.startswith(temporary)]
        if foreign or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder}: holds other files; choose another folder with --out")
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _allocate(folder / FEATURES, (len(names), encoder["feature_size"]), "<f2")
            _allocate(folder / MARKS, (len(names),), "|u1")
            (folder / REASONS).write_bytes(b"")
        about = {
            "kind": f"{KIND} {FORMAT}",
            "batch": batch,
            "encoder": dict(encoder),
            "names": list(names),
        }
        write_text(folder / STORE, json.dumps(about, indent=1))  # last: it makes the folder a store
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """Open an existing store, complete or not.

        Raises:
            UserError: there is no store, or its files do not match each other.
        """
        path = folder / STORE
        try:
            about = json.loads(read_text(path, "feature store"))
            names, encoder, batch = about["names"], about["encoder"], about["batch"]
            texts = [about["kind"], *names, *(encoder[k] for k in ("id", "name", "preprocessing"))]
            whole = all(isinstance(text, str) for text in texts)
            kind, _, version = texts[0].rpartition(" ") if whole else ("", "", "")
            if kind == KIND and version != str(FORMAT):
                raise ValueError(f"format {version}, this minicap reads format {FORMAT}")
            whole = whole and kind == KIND
            shape = len(names), encoder["feature_size"]
            if not whole or len(set(names)) < len(names) or type(batch) is not int or batch < 1:
                raise ValueError("unexpected content")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: damaged, or no feature store ({error!r})") from error
        _mapped(folder / FEATURES, shape, "<f2")
        marks = numpy.array(_mapped(folder / MARKS, shape[:1], "|u1"))
        if (marks > SKIPPED).any():
            raise UserError(f"{folder / MARKS}: damaged; delete {folder} and encode again")
        return cls(folder, names, encoder, batch, marks)

    def check(self, names: Sequence[str], encoder: Mapping) -> None:
        """Compare the store with what is about to be encoded.

        Args:
            names: the photos.
            encoder: the encoder's description, from `Encoder.about`.

        Raises:
            UserError: the store was created with another encoder or other photos; the message
                gives the difference.
        """
        if self.encoder["id"] != encoder["id"]:
            ours, other = (f"{e['name']} ({e['id'][:12]})" for e in (self.encoder, encoder))
            raise UserError(
                f"{self.folder}: holds features of {ours}, {self.encoder['preprocessing']}, not of "
                f"{other}, {encoder['preprocessing']}; use the first encoder, or choose another "
                "folder with --out"
            )
        if self.names != list(names):
            new, gone = set(names) - set(self.names), set(self.names) - set(names)
            example = min(new or gone, default="their order differs")
            raise UserError(
                f"{self.folder}: was created with other photos ({len(new)} are new and {len(gone)} "
                f"gone: {example}); choose another folder with --out"
            )

    @property
    def encoded(self) -> int:
        """The number of photos in batches that are complete: done or skipped."""
        return len(self.names) - sum(len(self.batch_at(row)) for row in self.todo())

    def todo(self) -> list[int]:
        """Return the first row of each batch that is not complete."""
        rows = numpy.flatnonzero(self.marks == TODO)
        return (numpy.unique(rows // self.batch) * self.batch).tolist()

    def batch_at(self, row: int) -> list[str]:
        """Return the names of the photos in the batch that begins at a row."""
        return self.names[row : row + self.batch]

    def fill(
        self, results: Iterable[tuple[int, numpy.ndarray, Mapping[str, str]]], rank: int = 0
    ) -> Iterator[int]:
        """Store the features of batches of `todo`.

        Args:
            results: for each batch its first row, its features, (n, F), and photo -> reason for
                those to skip. Photos whose features do not fit into float16 are skipped too.
            rank: which rank of an MPI job this is, if others store other batches.

        Yields:
            The number of photos of each batch, once it is synced to the disk.

        Raises:
            UserError: the disk is full. Earlier batches are kept.
        """
        own = f"skipped-{rank}.jsonl" if rank else REASONS
        with (
            _writing(self.folder),
            _open(self.folder / FEATURES) as features,
            _open(self.folder / MARKS) as marks,
            open(self.folder / own, "ab") as reasons,
        ):
            for row, array, unreadable in results:
                names = self.batch_at(row)
                half, skipped = _as_stored(array, names, unreadable)
                for number, (name, reason) in enumerate(zip(names, skipped), row):
                    if reason:
                        reasons.write(_line(number, name, reason))
                _put(features, row, half)
                _sync(reasons)
                self.marks[row : row + len(half)] = [SKIPPED if r else DONE for r in skipped]
                _put(marks, row, self.marks[row : row + len(half)])
                yield len(half)

    def tidy(self) -> numpy.ndarray:
        """Read all marks, and put all reasons into one file, in the order of the photos.

        Reasons of photos that are encoded again are dropped, and incomplete lines.

        Returns:
            The marks, as they are on the disk.

        Raises:
            UserError: the store is damaged, or the disk is full.
        """
        self.marks[...] = _mapped(self.folder / MARKS, self.marks.shape, "|u1")
        todo, lines = set(self.todo()), {}
        files = sorted(self.folder.glob("skipped*.jsonl"))
        for path in files:
            for line in path.read_bytes().splitlines(keepends=True):
                with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
                    row = json.loads(line)["row"]
                    again = row // self.batch * self.batch in todo
                    if line.endswith(b"\n") and self.marks[row] == SKIPPED and not again:
                        lines[row] = line
        write_text(self.folder / REASONS, b"".join(lines[row] for row in sorted(lines)).decode())
        for path in files:
            if path.name != REASONS:
                path.unlink()
        return self.marks

    def skipped(self) -> Iterator[list[str]]:
        """Yield the names of the skipped photos, in batches."""
        names = [self.names[row] for row in numpy.flatnonzero(self.marks == SKIPPED)]
        for start in range(0, len(names), self.batch):
            yield names[start : start + self.batch]

    def reasons(self) -> Counter[str]:
        """Count the skipped photos by reason."""
        text = read_text(self.folder / REASONS, "list of skipped photos")
        return Counter(json.loads(line)["reason"] for line in text.splitlines())

    def retry(self, results: Iterable[tuple[numpy.ndarray, Mapping[str, str]]]) -> int:
        """Store the features of `skipped` photos that a second attempt could read.

        Args:
            results: for each batch of `skipped`, as for `fill`.

        Returns:
            The number of photos that are no longer skipped.

        Raises:
            UserError: the disk is full.
        """
        rows, lines = iter(numpy.flatnonzero(self.marks == SKIPPED).tolist()), []
        recovered = 0
        with (
            _writing(self.folder),
            _open(self.folder / FEATURES) as features,
            _open(self.folder / MARKS) as marks,
        ):
            for array, unreadable in results:
                batch = [next(rows) for _ in array]
                names = [self.names[row] for row in batch]
                half, skipped = _as_stored(array, names, unreadable)
                for row, name, one, reason in zip(batch, names, half, skipped, strict=True):
                    if reason:
                        lines.append(_line(row, name, reason))
                    else:
                        _put(features, row, one[None])
                        self.marks[row] = DONE
                        _put(marks, row, self.marks[row : row + 1])
                        recovered += 1
        write_text(self.folder / REASONS, b"".join(lines).decode())
        return recovered

    def features(self) -> numpy.ndarray:
        """Map all rows into memory, (P, F) float16; rows that are not used are never read."""
        shape = len(self.names), self.encoder["feature_size"]
        return _mapped(self.folder / FEATURES, shape, "<f2")


def _as_stored(
    array: numpy.ndarray, names: Sequence[str], unreadable: Mapping[str, str]
) -> tuple[numpy.ndarray, list[str]]:
    """Features as float16, 0 for skipped photos; and each photo's reason to be skipped, or ""."""
    with numpy.errstate(over="ignore"):
        half = array.astype("<f2")
    finite = numpy.isfinite(half).all(axis=1)
    infinite = "its features are NaN, infinite or beyond float16"
    skipped = [
        unreadable.get(n, "" if ok else infinite) for n, ok in zip(names, finite, strict=True)
    ]
    half[[bool(reason) for reason in skipped]] = 0
    return half, skipped


def _line(row: int, name: str, reason: str) -> bytes:
    """A line of skipped.jsonl."""
    return json.dumps({"row": row, "photo": name, "reason": reason}).encode() + b"\n"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; what was encoded is kept; run the "
            "same command again to resume"
        ) from error


def _allocate(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Create an .npy file of zeros with its disk space reserved."""
    size = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    if size > shutil.disk_usage(path.parent).free:
        raise OSError(28, f"no room for {size:,} bytes")
    with open(path, "wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        numpy.lib.format.write_array_header_1_0(file, header)
        file.flush()
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), file.tell(), size)
        else:
            file.truncate(file.tell() + size)
        os.fsync(file.fileno())


def _mapped(path: Path, shape: tuple[int, ...], dtype: str) -> numpy.ndarray:
    """Memory-map an .npy file; UserError if it is truncated or has another shape or dtype."""
    try:
        array = numpy.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy's parser of headers raises half a dozen kinds
        raise UserError(
            f"{path}: damaged or missing ({error}); delete {path.parent} and encode again"
        ) from error
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"{path}: holds {array.shape} {array.dtype} where {STORE} has {shape} {dtype}; "
            f"delete {path.parent} and encode again"
        )
    return array


def _put(file, row: int, rows: numpy.ndarray) -> None:
    """Write rows of an .npy file, starting at row `row`, and sync them to the disk."""
    file.seek(0)
    numpy.lib.format.read_magic(file)
    numpy.lib.format.read_array_header_1_0(file)
    file.seek(row * rows[0].nbytes, os.SEEK_CUR)
    file.write(rows.tobytes())
    _sync(file)


def _sync(file) -> None:
    """Write the file's buffers to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _open(path: Path) -> IO[bytes]:
    """Open a file of rows, to which other ranks write other rows.

    A page may hold rows of several ranks. A client of NFS that changes some bytes of a page may
    write the whole page, and then undo what others have written since it read it. It does not if
    the file is open for synchronous writes.
    """
    several = getattr(os, "O_DSYNC", 0) if world().size > 1 else 0
    return open(path, "r+b", opener=lambda name, flags: os.open(name, flags | several))
