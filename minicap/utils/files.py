"""Atomic writes, lock files, and reading of text files."""

import contextlib
import gzip
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minicap.utils.errors import UserError
from minicap.utils.ranks import world

if TYPE_CHECKING:
    from PIL import Image

LARGEST_TEXT = 1 << 30  # bytes; the limit for unpacked text


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` when the block ends.

    The temporary file is synced to the disk before it is renamed. If anything fails, it is removed,
    and `path` is as it was. Symbolic links and permissions are kept.

    Args:
        path: the file to replace or to create. Its folder is created if needed.

    Raises:
        UserError: the operating system refuses (a full disk), or `path` is not a regular file.
    """
    temporary = None
    try:
        try:
            path = path.resolve()
        except RuntimeError as error:  # until Python 3.13
            raise UserError(f"cannot write {path}: a link to itself") from error
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: this is not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        name.touch(exist_ok=False)  # with a new file's permissions
        temporary = name
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; no existing file was changed") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file while the block runs, and remove it afterwards.

    The operating system releases the lock of a process that is killed. In an MPI job, rank 0 holds
    it for all.

    Args:
        path: the lock file.
        refusal: error message if another process holds the lock.

    Raises:
        UserError: another process holds the lock, or the file cannot be created.
    """
    from filelock import FileLock, Timeout

    if world().rank:
        yield
        return
    lock = FileLock(path, timeout=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(refusal) from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        # Remove before releasing, so that no other process can hold it yet. (Windows refuses.)
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def listed(paths: Iterable[Path]) -> str:
    """Join paths by commas, for messages."""
    return ", ".join(map(str, paths))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: the file; gzipped if its name ends in .gz.
        text: its contents. Lone surrogates (undecodable bytes of a file name, for example) are
            written as escapes, such as \\udc80.

    Raises:
        UserError: the file cannot be written.
    """
    data = text.encode("utf-8", errors="backslashreplace")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_png(image: "Image.Image", path: Path) -> None:
    """Write an image as PNG, atomically."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        image.save(file, format="PNG", optimize=True)


def read_text(path: Path, what: str) -> str:
    """Read a UTF-8 text file.

    Args:
        path: the file; unpacked if it is gzipped.
        what: what the file should be, for messages.

    Raises:
        UserError: the file is missing, damaged, not UTF-8, or unpacks to more than LARGEST_TEXT.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"
            file.seek(0)
            data = gzip.GzipFile(fileobj=file).read(LARGEST_TEXT + 1) if packed else file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged, or not a gzip file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the {what} ({error.strerror or error})") from error
    if packed and len(data) > LARGEST_TEXT:
        raise UserError(f"{path}: would unpack to more than {LARGEST_TEXT:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: the {what} must be UTF-8 text: save it as UTF-8"
        ) from error


def read_lines(path: Path, what: str) -> list[str]:
    """Read the lines of a text file (see `read_text`), with Unix, Windows or old Mac line ends.

    str.splitlines would also split at U+2028 or a form feed inside a caption.
    """
    return read_text(path, what).replace("\r\n", "\n").replace("\r", "\n").split("\n")
