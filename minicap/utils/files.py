"""Files that are never half-written."""

import contextlib
import gzip
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minicap.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

LARGEST_TEXT = 1 << 30  # bytes that a compressed file may unpack to


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there takes its place when the block ends.

    It is synced to the disk before it is renamed. If anything fails, a full disk for example,
    the temporary file is removed and what was at `path` is still there. A link stays one, a file's
    permissions stay. UserError: an OSError, or at `path` is something else than a file.
    """
    temporary = None
    try:
        try:
            path = path.resolve()
        except RuntimeError as error:  # until Python 3.13
            raise UserError(f"cannot write {path}: a link to itself") from error
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: this is no ordinary file")
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        name.touch(exist_ok=False)  # with the permissions that a new file has here
        temporary = name
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; nothing that was there is lost") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, and remove it afterwards.

    The operating system releases the lock of a process that is killed. Raises UserError: `refusal`
    if another process holds the lock, or the file cannot be made.
    """
    from filelock import FileLock, Timeout

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
        # Removed while it is held: nobody else can be holding it. (Windows keeps an open file.)
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`, all or nothing; compressed if it is called .gz. What
    UTF-8 cannot hold (a file name's odd bytes, half a character out of JSON) becomes \\udc80 or the
    like, as JSON has it."""
    data = text.encode("utf-8", errors="backslashreplace")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_png(image: "Image.Image", path: Path) -> None:
    """Write an image as PNG, all or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        image.save(file, format="PNG", optimize=True)


def read_text(path: Path, what: str) -> str:
    """The UTF-8 text at `path`, unpacked if it is gzipped. UserError, naming `what` it should be,
    where there is none."""
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
        raise UserError(f"{path}: it would unpack to more than {LARGEST_TEXT:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: the {what} must be UTF-8 text: save it as such"
        ) from error


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of `read_text`, as Unix, Windows and old Macs end them. Not str.splitlines, which
    also cuts where a caption holds U+2028 or a form feed."""
    return read_text(path, what).replace("\r\n", "\n").replace("\r", "\n").split("\n")
