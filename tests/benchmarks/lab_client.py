"""A server of the lab in a process of its own, and a client that can misbehave."""

import asyncio
import contextlib
import io
import json
import random
import resource
import subprocess
import sys

import numpy
from PIL import Image

from minicap.server.samples import drawn_samples


def _write_nothing() -> None:
    """Let the server write to no file: pipes are not files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextlib.contextmanager
def serving(*options: str):
    """Run `minicap serve` on a free port; yields the process and the port."""
    command = [sys.executable, "-B", "-m", "minicap", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=_write_nothing
    )
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        yield process, int(lines[1].split("127.0.0.1:")[1].split()[0])
    finally:
        process.terminate()
        process.wait(30)


def photos(count: int, seed: int = 0) -> list[bytes]:
    """Draw scenes and save them as JPEG files of several sizes."""
    rng, found = numpy.random.default_rng(seed), []
    for sample in drawn_samples(count, seed):
        width = int(rng.integers(240, 1200))
        image = sample.open().resize((width, width * 3 // 4), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=int(rng.integers(60, 95)))
        found.append(out.getvalue())
    return found


def distinct(jpeg: bytes, rng: random.Random) -> bytes:
    """Add a comment to a JPEG, which makes it another photo of the same pixels."""
    text = f"{rng.getrandbits(128):032x}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2) + text + jpeg[2:]


def request(body: bytes, query: str = "", headers: str = "", host: str = "127.0.0.1") -> bytes:
    """Write a POST to /api/caption."""
    head = f"POST /api/caption?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(port: int, data: bytes, *, pieces: int = 1, pause: float = 0.0) -> tuple:
    """Send bytes, in pieces with pauses between them, and read the answer.

    Returns:
        The status, or 0 if the server closed the connection without one, and the decoded JSON.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            size = -(-len(data) // pieces)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
                await asyncio.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return 0, None
    try:
        return int(head.split()[1]), json.loads(body)
    except ValueError:
        return int(head.split()[1]), None
