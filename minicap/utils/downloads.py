"""A file from the net: whole and checked, or not there; begun ones are gone on with."""

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

TRIES = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the second try; doubled for each further one
BLOCK = 1 << 18  # bytes


def fetch(
    url: str,
    path: Path,
    checksum: str,
    size: int | None = None,
    what: str = "file",
    timeout: float = 30.0,
    most: int | None = None,
) -> Path:
    """Download `url` (HTTP or HTTPS) to `path` and return it; nothing to do if it is there.

    checksum: "md5:..." or "sha256:..." in hex; size: exact, in bytes, if it is known. `what` names
    the thing in messages. `timeout` in seconds is for one silence of the server; `most`: bytes that
    it may send where `size` is not known.

    The bytes go to `path` + ".part", are checked and synced, and only then take their place. A
    line that breaks is taken up again where it broke, and so is a .part that an earlier run left,
    Ctrl-C's for one. No more than `size` bytes, or `most`, or as many as the server announced, are
    ever written.

    Raises UserError: no network, no such file, wrong length or checksum, a full disk.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"not an HTTP address: {url}")
    with _local(path):
        if path.exists() and is_whole(path, checksum, size):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with exclusive(path.with_name(f".{path.name}.lock"), f"{path}: another process downloads it"):
        _fetch(url, path, part, checksum, size, what, timeout, most)
    return path


def _fetch(
    url: str,
    path: Path,
    part: Path,
    checksum: str,
    size: int | None,
    what: str,
    timeout: float,
    most: int | None,
) -> None:
    """Download with retries, check, and put the file in its place."""
    by_hand = f"fetch {url} by hand and put it at {path}"
    best, failures = -1, 0
    while True:
        reached_server = True
        try:
            _receive(url, part, size, what, timeout, most)
            break
        except HTTPError as error:
            error.close()
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 416, 425, 429):
                raise UserError(
                    f"{what}: {url} is not to be had ({reason}); look where it has gone, "
                    f"fetch it by hand and put it at {path}"
                ) from None
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) else error
            reached_server = not isinstance(error, URLError)
            words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            reason = "no answer" if isinstance(cause, TimeoutError) else words
        have = _length(part)
        failures = 1 if have > best >= 0 else failures + 1
        if failures == TRIES or (best < 0 and not reached_server):  # no network at all: say so now
            kept = f" ({have:,} bytes are kept; the same command goes on there)" if have else ""
            raise UserError(f"{what}: cannot be fetched: {reason}{kept}; try again, or {by_hand}")
        best = max(best, have)
        print(f"{what}: {reason}; trying again", file=sys.stderr)
        time.sleep(PAUSE * 2 ** (failures - 1))

    with _local(path):
        if not is_whole(part, checksum, size):
            part.unlink(missing_ok=True)
            raise UserError(
                f"{what}: what {url} sent is not the file that was expected (its checksum or "
                f"length is another), and is removed; try again, or {by_hand}"
            )
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def is_whole(path: Path, checksum: str, size: int | None = None) -> bool:
    """Whether the file at `path` has this length in bytes and this "md5:..." or "sha256:..."."""
    if size is not None and path.stat().st_size != size:
        return False
    kind, _, wanted = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest() == wanted


def _receive(
    url: str,
    part: Path,
    size: int | None,
    what: str,
    timeout: float,
    most: int | None,
) -> None:
    """One request: append to `part` what it lacks. OSError or HTTPException: the line broke."""
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
        if error.code == 416:  # nothing to add: it is whole, or it has become shorter
            if error.headers.get("Content-Range") == f"bytes */{have}":
                error.close()
                return
            part.unlink(missing_ok=True)
        raise
    with closing(response):
        first, total = _extent(response)
        if first and first != have:
            part.unlink(missing_ok=True)
            raise HTTPException("the server sent another part than was asked for")
        have = first
        if None not in (size, total) and size != total:
            raise UserError(
                f"{what}: {url} has {total:,} bytes instead of {size:,}: it is another file now; "
                "look for a newer minicap"
            )
        limit = total if size is None else size
        cap = min((n for n in (limit, most) if n is not None), default=None)
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
                f"{what}: {url} sends more than the {cap:,} bytes that it should have: it is "
                "another file now; look for a newer minicap"
            )
        if limit is not None and have < limit:
            raise HTTPException(f"the line broke after {have:,} of {limit:,} bytes")


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the answer's bytes begin, and the file's length if the server says it."""
    if response.status == 206:
        found = re.fullmatch(
            r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", "")
        )
        if not found:
            raise HTTPException("an answer that does not say which part it is")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    return 0, response.length


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """This disk's errors, which no second try at the server would mend."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; what was fetched so far is kept"
        ) from error
