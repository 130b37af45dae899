"""The lab's throughput and latency next to the captioner called directly.

    python tests/benchmarks/serve.py [--photos 320] [--batch 32] [--rounds 5]

direct    Captioner.generate on the same photos, in the same batches, in this process
server    `minicap serve` in a process of its own; as many concurrent requests as a batch has photos
full      the same, with ten candidates for each token, as the page asks for

The three run interleaved. The server competes with its clients for the processors. Latency: one
request at a time, of a new photo, and again of the same photo by its id. Linux only.
"""

import argparse
import asyncio
import io
import json
import random
import statistics
import time

from lab_client import distinct, exchange, photos, request, serving

import minicap


async def burst(port: int, contents: list[bytes], batch: int, query: str) -> float:
    """Send photos from as many clients as a batch has photos; returns photos per second."""
    waiting = iter(contents)

    async def client() -> None:
        for content in waiting:
            status, answer = await exchange(port, request(content, query))
            assert status == 200, answer

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(batch)))
    return len(contents) / (time.perf_counter() - start)


async def latencies(port: int, contents: list[bytes], query: str) -> tuple[float, float]:
    """Median milliseconds of a new photo, and of a known one."""
    new, known = [], []
    for content in contents:
        start = time.perf_counter()
        _, answer = await exchange(port, request(content, query))
        middle = time.perf_counter()
        await exchange(port, request(b"", f"photo={answer['photo']}&{query}"))
        new.append(1000 * (middle - start))
        known.append(1000 * (time.perf_counter() - middle))
    return statistics.median(new), statistics.median(known)


def main() -> None:
    """Print a line for each way, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng, some = random.Random(0), photos(24)

    def fresh(count: int) -> list[bytes]:
        return [distinct(rng.choice(some), rng) for _ in range(count)]

    captioner = minicap.load()

    def direct(contents: list[bytes]) -> float:
        start = time.perf_counter()
        for first in range(0, len(contents), options.batch):
            batch = [io.BytesIO(content) for content in contents[first : first + options.batch]]
            captioner.generate(batch)
        return len(contents) / (time.perf_counter() - start)

    rates: dict[str, list[float]] = {"direct": [], "server": [], "full": []}
    with serving() as (_, port):
        direct(fresh(options.batch))
        asyncio.run(burst(port, fresh(options.batch), options.batch, ""))
        for number in range(options.rounds):
            ways = [*rates]
            for way in ways[number % 3 :] + ways[: number % 3]:
                contents = fresh(options.photos)
                if way == "direct":
                    rates[way].append(direct(contents))
                else:
                    query = "candidates=0" if way == "server" else ""
                    rates[way].append(asyncio.run(burst(port, contents, options.batch, query)))
        new, known = asyncio.run(latencies(port, fresh(60), ""))
    for way, found in rates.items():
        ratios = [a / b for a, b in zip(found, rates["direct"], strict=True)]
        print(f"{way:7} {statistics.median(found):6.1f} photos/s, {statistics.median(ratios):.2f}")
    print(f"latency {new:.0f} ms for a new photo, {known:.0f} ms for a known one")
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
