"""Many photos through an encoder: the next ones are read while the network works on the last."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minicap.backend import to_host
from minicap.encoder.session import Encoder
from minicap.utils.errors import UnusableImage

AHEAD = 2  # batches that are read before their turn: it bounds the memory


def encode_batches(
    encoder: Encoder,
    batches: Iterable[Sequence[str]],
    open: Callable[[str], Any],
    readers: int,
    runs: int = 1,
) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """For each batch of n names: features (n, feature_size), on the host, and name -> reason for
    photos that are unusable, whose features are 0.

    open: a name -> what Encoder.pixels takes, or UnusableImage; readers: threads that read, unpack
    and resize (Pillow lets go of Python's lock); runs: batches that the network works on at once.
    Several runs of one thread each are better than one run of several: these would wait for each
    other after every layer, and for whichever of them a reader has pushed aside.
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

    with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(runs) as encoding:
        waiting: deque[Future] = deque()
        try:
            for names in batches:
                read = [reading.submit(pixels, name) for name in names]
                waiting.append(encoding.submit(encode, names, read))
                if len(waiting) >= AHEAD + runs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            encoding.shutdown(wait=False, cancel_futures=True)
            reading.shutdown(wait=False, cancel_futures=True)
