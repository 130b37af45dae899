"""Many photos through an encoder: the next ones are read while the network works on the last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minicap.backend import Array
from minicap.encoder.session import Encoder
from minicap.errors import UnusableImage

AHEAD = (
    2  # batches that are read before their turn: bounds the memory, whatever the number of photos
)


def encode_batches(
    encoder: Encoder,
    batches: Iterable[Sequence[str]],
    open: Callable[[str], Any],
    readers: int,
) -> Iterator[tuple[Array, dict[str, str]]]:
    """For each batch of n names: features (n, feature_size) and, for photos that are unusable,
    name -> reason.

    open: a name -> what Encoder.pixels takes, or UnusableImage; readers: threads that read, unpack
    and resize (Pillow lets go of Python's lock). An unusable photo counts as a black one, so that
    every other's place in its batch, and with it the last bit of its features, stays the same.
    """
    black = np.zeros((encoder.size, encoder.size, 3), np.uint8)

    def pixels(name: str) -> np.ndarray | str:
        try:
            return encoder.pixels(open(name))
        except UnusableImage as error:
            return error.reason

    def encode(names: Sequence[str], futures: Sequence[Future]) -> tuple[Array, dict[str, str]]:
        read = {name: future.result() for name, future in zip(names, futures, strict=True)}
        reasons = {name: found for name, found in read.items() if isinstance(found, str)}
        whole = [black if name in reasons else found for name, found in read.items()]
        return encoder.encode(np.stack(whole)), reasons

    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[tuple[Sequence[str], list[Future]]] = deque()
        try:
            for names in batches:
                waiting.append((names, [pool.submit(pixels, name) for name in names]))
                if len(waiting) > AHEAD:
                    yield encode(*waiting.popleft())
            while waiting:
                yield encode(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
