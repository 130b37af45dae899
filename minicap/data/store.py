"""A feature store: a folder that fills up over hours, and may be killed at any moment.

    features.npy   (P, F) float16, filled from the first photo to the last
    done.npy       (P,) uint8, what is known of each: TODO, DONE or SKIPPED
    skipped.jsonl  a line for each photo that was skipped, with the reason
    store.json     the photos' names, and what is known of the encoder

Features reach the disk before their rows are marked. So what is marked is there; what is not marked
is encoded again, in the same batches, and the result is bit for bit that of an unbroken run.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy

from minicap.utils.errors import UserError
from minicap.utils.files import read_text, write_text

KIND = "minicap feature store 1"
STORE, FEATURES, MARKS, REASONS = "store.json", "features.npy", "done.npy", "skipped.jsonl"
LOCK = ".lock"  # of the process that encodes
TODO, DONE, SKIPPED = range(3)


@dataclass(frozen=True)
class FeatureStore:
    """A store on the disk.

    folder: where it lies; names: P photos; encoder: what is known of the encoder, as
    Encoder.about() has it; batch: photos that are encoded together; marks: (P,) uint8.
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
        """An empty store, with the room for all features taken on the disk.

        UserError: no such room; something else in the folder.
        """
        ours = {STORE, FEATURES, MARKS, REASONS, LOCK}
        there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        begun = f".{STORE}."  # what a kill may have left of writing STORE
        foreign = [name for name in there if name not in ours and not name.startswith(begun)]
        if foreign or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder}: something else is there; give --out another folder")
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _allocate(folder / FEATURES, (len(names), encoder["feature_size"]), "<f2")
            _allocate(folder / MARKS, (len(names),), "|u1")
            (folder / REASONS).write_bytes(b"")
        about = {"kind": KIND, "batch": batch, "encoder": dict(encoder), "names": list(names)}
        write_text(folder / STORE, json.dumps(about, indent=1))  # last: now it is a store
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FeatureStore":
        """A store as it was left. UserError: there is none, or its parts do not fit each other."""
        path = folder / STORE
        try:
            about = json.loads(read_text(path, "feature store"))
            names, encoder, batch = about["names"], about["encoder"], about["batch"]
            texts = [about["kind"], *names, *(encoder[k] for k in ("id", "name", "preprocessing"))]
            whole = all(isinstance(text, str) for text in texts) and about["kind"] == KIND
            shape = len(names), encoder["feature_size"]
            if not whole or len(set(names)) < len(names) or type(batch) is not int or batch < 1:
                raise ValueError("not as minicap.encode writes it")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path}: damaged, or no feature store ({error!r})") from error
        _mapped(folder / FEATURES, shape, "<f2")
        marks = numpy.array(_mapped(folder / MARKS, shape[:1], "|u1"))
        if (marks > SKIPPED).any():
            raise UserError(f"{folder / MARKS}: damaged; delete {folder} and encode again")
        return cls(folder, names, encoder, batch, marks)

    def check(self, names: Sequence[str], encoder: Mapping) -> None:
        """UserError, with the difference, unless the store is of these photos and this encoder."""
        if self.encoder["id"] != encoder["id"]:
            ours, other = (f"{e['name']} ({e['id'][:12]})" for e in (self.encoder, encoder))
            raise UserError(
                f"{self.folder}: holds features of {ours}, {self.encoder['preprocessing']}, not of "
                f"{other}, {encoder['preprocessing']}; go on with the first, or give --out another "
                "folder"
            )
        if self.names != list(names):
            new, gone = set(names) - set(self.names), set(self.names) - set(names)
            example = min(new or gone, default="their order differs")
            raise UserError(
                f"{self.folder}: was begun with other photos ({len(new)} are new and {len(gone)} "
                f"gone: {example}); give --out another folder"
            )

    @property
    def begun(self) -> int:
        """How many rows, from the first on, are in place: whole batches, or all."""
        todo = numpy.flatnonzero(self.marks == TODO)
        return int(todo[0]) // self.batch * self.batch if len(todo) else len(self.names)

    def batches(self) -> Iterator[list[str]]:
        """The names of the photos that are still to be encoded, in the batches of every run."""
        for start in range(self.begun, len(self.names), self.batch):
            yield self.names[start : start + self.batch]

    def fill(self, results: Iterable[tuple[numpy.ndarray, Mapping[str, str]]]) -> Iterator[int]:
        """Write what became of each of `batches()`: features (n, F), and name -> reason for photos
        to be skipped. Those whose features float16 cannot hold are skipped as well.

        Yields the number of photos after each batch, when they are safe on the disk. UserError
        when it is full: what was there is kept.
        """
        row = self.begun
        with (
            _writing(self.folder),
            open(self.folder / FEATURES, "r+b") as features,
            open(self.folder / MARKS, "r+b") as marks,
            open(self.folder / REASONS, "r+b") as reasons,
        ):
            _keep_lines_before(reasons, row)
            for array, why in results:
                names = self.names[row : row + len(array)]
                half, skipped = _as_stored(array, names, why)
                for number, (name, reason) in enumerate(zip(names, skipped), row):
                    if reason:
                        reasons.write(_line(number, name, reason))
                _put(features, row, half)
                _sync(reasons)
                self.marks[row : row + len(half)] = [SKIPPED if r else DONE for r in skipped]
                _put(marks, row, self.marks[row : row + len(half)])
                row += len(half)
                yield len(half)

    def skipped(self) -> Iterator[list[str]]:
        """The names of the photos that were skipped, in batches."""
        names = [self.names[row] for row in numpy.flatnonzero(self.marks == SKIPPED)]
        for start in range(0, len(names), self.batch):
            yield names[start : start + self.batch]

    def mend(self, results: Iterable[tuple[numpy.ndarray, Mapping[str, str]]]) -> int:
        """Write what became of each of `skipped()`, tried again: as `fill` has it. Those that are
        usable now take their places. Returns how many they are."""
        rows, lines = iter(numpy.flatnonzero(self.marks == SKIPPED).tolist()), []
        mended = 0
        with (
            _writing(self.folder),
            open(self.folder / FEATURES, "r+b") as features,
            open(self.folder / MARKS, "r+b") as marks,
        ):
            for array, why in results:
                batch = [next(rows) for _ in array]
                names = [self.names[row] for row in batch]
                half, skipped = _as_stored(array, names, why)
                for row, name, one, reason in zip(batch, names, half, skipped, strict=True):
                    if reason:
                        lines.append(_line(row, name, reason))
                    else:
                        _put(features, row, one[None])
                        self.marks[row] = DONE
                        _put(marks, row, self.marks[row : row + 1])
                        mended += 1
        write_text(self.folder / REASONS, b"".join(lines).decode())
        return mended

    def features(self) -> numpy.ndarray:
        """All rows, (P, F) float16, as a map of the file: what is not used is never read."""
        shape = len(self.names), self.encoder["feature_size"]
        return _mapped(self.folder / FEATURES, shape, "<f2")


def _as_stored(
    array: numpy.ndarray, names: Sequence[str], why: Mapping[str, str]
) -> tuple[numpy.ndarray, list[str]]:
    """Features as float16, 0 for what is skipped, and for each photo the reason for that or ""."""
    with numpy.errstate(over="ignore"):
        half = array.astype("<f2")
    finite = numpy.isfinite(half).all(axis=1)
    infinite = "its features are NaN, infinite or beyond float16"
    skipped = [why.get(n, "" if ok else infinite) for n, ok in zip(names, finite, strict=True)]
    half[[bool(reason) for reason in skipped]] = 0
    return half, skipped


def _line(row: int, name: str, reason: str) -> bytes:
    return json.dumps({"row": row, "photo": name, "reason": reason}).encode() + b"\n"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A full disk as one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; what was encoded is kept, and the "
            "same command goes on from there"
        ) from error


def _allocate(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """An .npy file of zeros that has its room on the disk."""
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
    """An .npy file as a map. UserError when it is not of this shape and dtype, or cut off."""
    try:
        array = numpy.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: damaged or missing ({error}); delete {path.parent} and encode again"
        ) from error
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"{path}: holds {array.shape} {array.dtype} where {STORE} says {shape} {dtype}; "
            f"delete {path.parent} and encode again"
        )
    return array


def _put(file, row: int, rows: numpy.ndarray) -> None:
    """Write rows at their place in an .npy file, and see them on the disk."""
    file.seek(0)
    numpy.lib.format.read_magic(file)
    numpy.lib.format.read_array_header_1_0(file)
    file.seek(row * rows[0].nbytes, os.SEEK_CUR)
    file.write(rows.tobytes())
    _sync(file)


def _sync(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _keep_lines_before(file, row: int) -> None:
    """Cut off the reasons of rows that are about to be encoded again, and half a line."""
    kept = 0
    for line in file:
        try:
            if json.loads(line)["row"] >= row:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept += len(line)
    file.truncate(kept)
    file.seek(kept)
