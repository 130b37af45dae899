"""Encode many photos: reader threads prepare the next ones while the network runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from minicap.backend import to_host
from minicap.encoder.session import Encoder
from minicap.utils.errors import UnusableImage

PREFETCH = 2  # batches read in advance: a bound on memory


def encode_batches(
    encoder: Encoder,
    batches: Iterable[Sequence[str]],
    open: Callable[[str], Any],
    readers: int,
    workers: int = 1,
) -> Iterator[tuple[np.ndarray, dict[str, str]]]:
    """Encode batches of photos in order.

    Several workers with one thread each are faster than one worker with several threads, which
    would wait for each other after every layer and for a core that a reader is using.

    Args:
        encoder: the encoder.
        batches: names of photos, n in each batch.
        open: returns for a name what `Encoder.pixels` takes, or raises UnusableImage.
        readers: threads that read, decode and resize (Pillow releases the GIL).
        workers: batches that the network encodes at the same time.

    Yields:
        For each batch, features (n, feature_size) float32 on the host and a dict from the names of
        unusable photos to the reasons. Rows of unusable photos are 0.
    """

    def load(name: str) -> np.ndarray | str:
        try:
            return encoder.pixels(open(name))
        except UnusableImage as error:
            return error.reason

    def encode(
        names: Sequence[str], futures: Sequence[Future]
    ) -> tuple[np.ndarray, dict[str, str]]:
        loaded = [future.result() for future in futures]
        usable = [not isinstance(pixels, str) for pixels in loaded]
        features = np.zeros((len(names), encoder.feature_size), np.float32)
        if any(usable):
            images = np.stack([pixels for pixels, ok in zip(loaded, usable) if ok])
            features[usable] = to_host(encoder.encode(images))
        return features, {name: why for name, why, ok in zip(names, loaded, usable) if not ok}

    with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(workers) as encoding:
        waiting: deque[Future] = deque()
        try:
            for names in batches:
                futures = [reading.submit(load, name) for name in names]
                waiting.append(encoding.submit(encode, names, futures))
                if len(waiting) >= PREFETCH + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            encoding.shutdown(wait=False, cancel_futures=True)
            reading.shutdown(wait=False, cancel_futures=True)
