"""An hour of the lab under 50 clients, a third of them hostile: no crash, flat memory, no leak.

    python tests/benchmarks/soak.py --minutes 60

The server may write to no file at all (a limit of the operating system). Each request has a set of
statuses that it may get. At the end: unexpected answers, latencies, and memory and open files of
the server per minute. Linux only.
"""

import argparse
import asyncio
import io
import os
import random
import struct
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy
from lab_client import distinct, exchange, photos, request, serving

GOOD = photos(24)


def png(width: int, height: int, data: bytes) -> bytes:
    """Write a grey PNG whose compressed rows are `data`."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zipped() -> bytes:
    """Write a zip file that unpacks to 100 MB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.jpg", bytes(100_000_000))
    return out.getvalue()


BOMB = png(60_000, 60_000, zlib.compress(bytes(10_000_000)))
HEAVY = png(7_000, 7_000, zlib.compress(bytes(7_001 * 7_000)))  # allowed, 49 million pixels
ZIP = zipped()
SETTINGS = [
    "",
    "beam_size=1&candidates=0",
    "beam_size=10&count=5",
    "temperature=0.8&top_p=0.9&count=3&seed={seed}",
    "tree=true&cells=auto",
    "no_repeat_ngram_size=2&min_length=8",
    "prefix=a",
]
WRONG = [
    "beam_size=1000000", "temperature=nan", "top_p=-1", "cells=999999", "cells=" + "1," * 500,
    "nonsense=1", "prefix=qwxyzzy", "prefix=" + "a%20" * 400, "seed=-1", "count=1e9",
    "tree=true&temperature=1",
]  # fmt: skip
PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "sample-99999",
    "sample-..",
    "%00",
    "file:///etc/passwd",
]


def scans(photo: bytes) -> bytes:
    """Add 50,000 scans to a JPEG."""
    return photo[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 50_000 + b"\xff\xd9"


def damaged(photo: bytes, rng: random.Random) -> bytes:
    """Change 20 bytes."""
    changed = bytearray(photo)
    for _ in range(20):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


# For each kind of request: its bytes, made of a photo and random numbers; the statuses that it may
# get (0: the connection is closed without one); and how it is sent.
KINDS = {
    "good": (lambda p, r: request(p, r.choice(SETTINGS).format(seed=r.randrange(1000))), {200}),
    "sample": (lambda p, r: request(b"", f"photo=sample-{r.randrange(8)}"), {200}),
    "good, slow": (lambda p, r: request(p), {200}, {"pieces": 5, "pause": 0.5}),
    "heavy": (lambda p, r: request(HEAVY), {200}),
    "bomb": (lambda p, r: request(BOMB), {422}),
    "many scans": (lambda p, r: request(scans(p)), {422}),
    "zip": (lambda p, r: request(ZIP), {422}),
    "polyglot": (lambda p, r: request(p + ZIP), {200}),
    "truncated": (lambda p, r: request(p[: r.randrange(100, len(p) - 500)]), {422}),
    "damaged": (lambda p, r: request(damaged(p, r)), {200, 422}),
    "noise": (lambda p, r: request(r.randbytes(r.randrange(1, 5000))), {422}),
    "html": (lambda p, r: request(b"<html><script>alert(1)</script>"), {422}),
    "too large": (lambda p, r: request(p + bytes(16_000_000)), {413, 0}),
    "says too large": (lambda p, r: request(b"x").replace(b"th: 1", b"th: 99999999999"), {413}),
    "form": (lambda p, r: request(p, headers="Content-Type: multipart/form-data\r\n"), {415, 0}),
    "path": (lambda p, r: request(b"", f"photo={r.choice(PATHS)}"), {404}),
    "wrong option": (lambda p, r: request(p, r.choice(WRONG)), {400}),
    "other host": (lambda p, r: request(p, host="evil.example"), {403, 0}),
    "other origin": (lambda p, r: request(p, headers="Origin: http://evil.example\r\n"), {403, 0}),
    "long header": (lambda p, r: request(p, headers="X: " + "x" * 100_000 + "\r\n"), {200, 400, 0}),
    "not HTTP": (lambda p, r: r.randbytes(200), {400, 0}),
    "slow headers": (lambda p, r: b"POST /api/caption HTTP/1.1\r\nX: " + b"x" * 30, {0},
                     {"pieces": 30, "pause": 1.0}),
    "slow body": (lambda p, r: request(p), {408, 0}, {"pieces": 30, "pause": 1.0}),
    "gives up": (lambda p, r: request(p)[:-100], {0}, None),
}  # fmt: skip
WEIGHTS = {"good": 40, "good, slow": 4, "sample": 4, "heavy": 0.3, "slow headers": 0.5,
           "slow body": 0.5}  # fmt: skip


async def client(port: int, rng: random.Random, until: float, pause: float, seen: list) -> None:
    """Send requests of random kinds until the time is over."""
    while time.monotonic() < until:
        await asyncio.sleep(rng.expovariate(1 / pause) if pause else 0)
        (kind,) = rng.choices([*KINDS], [WEIGHTS.get(kind, 1) for kind in KINDS])
        make, allowed, *rest = KINDS[kind]
        ways = rest[0] if rest else {}
        data = make(distinct(rng.choice(GOOD), rng), rng)
        start = time.perf_counter()
        if ways is None:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            await asyncio.sleep(rng.random())
            writer.close()
            status, answer = 0, None
        else:
            status, answer = await exchange(port, data, **ways)
        fine = status in allowed or status == 429
        fine &= status == 0 or isinstance(answer, dict) or kind in ("not HTTP", "long header")
        seen.append((kind, status, fine, time.perf_counter() - start))


async def watch(process: int, until: float, readings: list) -> None:
    """Read the server's memory and open files every minute."""
    folder = Path(f"/proc/{process}")
    while time.monotonic() < until:
        await asyncio.sleep(min(60, max(until - time.monotonic(), 0.1)))
        status = (folder / "status").read_text().split("VmRSS:")[1].split()[0]
        files = len(os.listdir(folder / "fd"))
        readings.append((int(status) // 1024, files))
        print(f"minute {len(readings):3}  {readings[-1][0]:,} MB, {files} open files", flush=True)


async def main() -> int:
    """Run the clients; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--pause", type=float, default=3, help="mean seconds between requests")
    options = parser.parse_args()
    seen, readings = [], []
    with serving() as (process, port):
        until = time.monotonic() + 60 * options.minutes
        clients = [
            client(port, random.Random(number), until, options.pause, seen)
            for number in range(options.clients)
        ]
        await asyncio.gather(*clients, watch(process.pid, until, readings))
        status, health = await exchange(
            port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        alive = process.poll() is None and status == 200
    for kind in dict.fromkeys(kind for kind, *_ in sorted(seen)):
        statuses = Counter(status for k, status, *_ in seen if k == kind)
        print(f"{kind:15} {sum(statuses.values()):6}  {dict(sorted(statuses.items()))}")
    bad = Counter((kind, status) for kind, status, fine, _ in seen if not fine)
    for name in "good", "sample":
        times = [seconds for kind, _, _, seconds in seen if kind == name]
        p50, p95, p99 = numpy.percentile(times, [50, 95, 99]) * 1000
        print(f"{name}: median {p50:.0f} ms, 95 % {p95:.0f} ms, 99 % {p99:.0f} ms")
    print(f"{len(seen):,} requests, unexpected: {dict(bad) or 'none'}")
    print(f"at the end: {'up' if alive else 'DOWN'}, {health}, exit {process.returncode}")
    return int(bool(bad) or not alive)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
