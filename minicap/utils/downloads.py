"""Downloads that resume, and that leave a whole and verified file or none."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from minicap.utils.errors import UserError
from minicap.utils.files import exclusive

TRIES = 5  # in a row without a new byte
PAUSE = 1.0  # seconds before the second try; doubled for each further try
BLOCK = 1 << 18  # bytes


def fetch(
    url: str,
    path: Path,
    checksum: str,
    size: int | None = None,
    what: str = "file",
    *,
    timeout: float = 30.0,
    max_size: int | None = None,
) -> Path:
    """Download a file, unless it is there already.

    The bytes go to `path` + ".part", which is verified, synced and renamed. A download that was
    interrupted resumes where it stopped, in the same run or a later one.

    Args:
        url: HTTP or HTTPS.
        path: where to put the file.
        checksum: "md5:..." or "sha256:...", in hex.
        size: the exact number of bytes, if known.
        what: the file's name in messages.
        timeout: seconds to wait for an answer or for more bytes.
        max_size: largest number of bytes to accept if `size` is not known.

    Returns:
        `path`.

    Raises:
        UserError: no network, no such file, a wrong length or checksum, or a full disk.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not an HTTP address: {url}")
    with _local(path):
        if path.exists() and is_whole(path, checksum, size):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{path}: another process is downloading it"
    with exclusive(path.with_name(f".{path.name}.lock"), busy):
        _fetch(url, path, checksum, size, what, timeout=timeout, max_size=max_size)
    return path


def _fetch(
    url: str,
    path: Path,
    checksum: str,
    size: int | None,
    what: str,
    *,
    timeout: float,
    max_size: int | None,
) -> None:
    """Download with retries, verify, and rename."""
    part = path.with_name(path.name + ".part")
    by_hand = f"download {url} by hand and put it at {path}"
    best, failures = -1, 0
    while True:
        reached_server = True
        try:
            _receive(url, part, size, what, timeout, max_size)
            break
        except HTTPError as error:
            error.close()
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 425, 429):
                raise UserError(
                    f"{what}: cannot download {url} ({reason}): find its new address, download it "
                    f"by hand and put it at {path}"
                ) from None
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) else error
            reached_server = not isinstance(error, URLError)
            words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            reason = "no answer" if isinstance(cause, TimeoutError) else words
        have = _length(part)
        failures = 1 if have > best >= 0 else failures + 1
        if failures == TRIES or (best < 0 and not reached_server):  # no network at all
            kept = f" ({have:,} bytes are kept; the same command resumes there)" if have else ""
            raise UserError(f"{what}: cannot download it: {reason}{kept}; try again, or {by_hand}")
        best = max(best, have)
        print(f"{what}: {reason}; retrying", file=sys.stderr)
        time.sleep(PAUSE * 2 ** (failures - 1))

    with _local(path):
        if not is_whole(part, checksum, size):
            part.unlink(missing_ok=True)
            raise UserError(
                f"{what}: what {url} sent is not the file that was expected (its checksum or "
                f"length differs) and was deleted; try again, or {by_hand}"
            )
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def is_whole(path: Path, checksum: str, size: int | None = None) -> bool:
    """Check a file's length and checksum.

    Args:
        path: the file.
        checksum: "md5:..." or "sha256:...", in hex.
        size: number of bytes, if known.
    """
    if size is not None and path.stat().st_size != size:
        return False
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == expected


def _receive(
    url: str,
    part: Path,
    size: int | None,
    what: str,
    timeout: float,
    max_size: int | None,
) -> None:
    """Append what `part` lacks with one request. OSError or HTTPException: connection broken."""
    from tqdm import tqdm

    have = _length(part)
    if have and have == size:
        return
    headers = {"User-Agent": "minicap", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        if error.code == 416:  # nothing to add: `part` is whole, or longer than the file
            if error.headers.get("Content-Range") == f"bytes */{have}":
                error.close()
                return
            part.unlink(missing_ok=True)
        raise
    with closing(response):
        first, total = _extent(response)
        if first and first != have:
            part.unlink(missing_ok=True)
            raise HTTPException("the server sent another part than requested")
        have = first
        if None not in (size, total) and size != total:
            raise UserError(
                f"{what}: {url} has {total:,} bytes instead of {size:,}: the file has changed; "
                "update minicap"
            )
        limit = total if size is None else size
        cap = min((n for n in (limit, max_size) if n is not None), default=None)
        with _local(part):
            file = part.open("ab" if have else "wb")
        seconds = 0.1 if sys.stderr.isatty() else 30.0
        with (
            file,
            tqdm(
                desc=what,
                total=limit,
                initial=have,
                unit="B",
                unit_scale=True,
                mininterval=seconds,
            ) as bar,
        ):
            while block := response.read1(BLOCK if cap is None else min(BLOCK, cap - have + 1)):
                have += len(block)
                if cap is not None and have > cap:
                    break
                with _local(part):
                    file.write(block)
                    file.flush()
                bar.update(len(block))
        if cap is not None and have > cap:
            part.unlink(missing_ok=True)
            raise UserError(
                f"{what}: {url} sends more than the {cap:,} bytes expected: the file has changed; "
                "update minicap"
            )
        if limit is not None and have < limit:
            raise HTTPException(f"the connection broke after {have:,} of {limit:,} bytes")


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Read where in the file a response starts, and the file's length if it is given."""
    if response.status == 206:
        found = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
        )
        if not found:
            raise HTTPException("the server's response does not say which part it is")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    return 0, response.length


def _length(part: Path) -> int:
    """The file's bytes, 0 if there is none."""
    return part.stat().st_size if part.exists() else 0


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """Turn errors of the local disk into UserError: another request would not help."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; the bytes so far are kept"
        ) from error
