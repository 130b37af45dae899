"""Many photos through an encoder: the next ones are read while the network works on the last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minicap.backend import to_host
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
) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """For each batch of n names: features (n, feature_size), on the host, and name -> reason for
    photos that are unusable, whose features are 0.

    open: a name -> what Encoder.pixels takes, or UnusableImage; readers: threads that read, unpack
    and resize (Pillow lets go of Python's lock).
    """

    def pixels(name: str) -> np.ndarray | str:
        try:
            return encoder.pixels(open(name))
        except UnusableImage as error:
            return error.reason

    def encode(
        names: Sequence[str], futures: Sequence[Future]
    ) -> tuple[np.ndarray, dict[str, str]]:
        read = [future.result() for future in futures]
        usable = [not isinstance(found, str) for found in read]
        features = np.zeros((len(names), encoder.feature_size), np.float32)
        if any(usable):
            pictures = np.stack([found for found, good in zip(read, usable) if good])
            features[usable] = to_host(encoder.encode(pictures))
        return features, {name: why for name, why, ok in zip(names, read, usable) if not ok}

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
