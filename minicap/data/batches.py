"""Captions of different lengths, packed: only real words, longest caption first, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Batch:
    """N captions with R words to predict, D of them distinct, as arrays on the host.

    With captions "s a cat e" and "s dogs e" (s and e: #START# and #END#), the inputs lie as
    s s | a dogs | cat and the targets as a dogs | cat e | e; sizes = [2, 2, 1].
    """

    features: numpy.ndarray  # (N, F) float32, in the captions' order, longest first
    words: numpy.ndarray  # (D,) the distinct words among the inputs, ascending
    positions: numpy.ndarray  # (R,) inputs, as indexes into `words`
    targets: numpy.ndarray  # (R,) the word that follows each input
    sizes: list[int]  # how many captions are still going at each step; the sum is R

    def split(self, workers: int) -> Iterator[tuple["Batch", dict[str, numpy.ndarray]]]:
        """Every `workers`-th caption to each worker, so that all get captions of all lengths.

        Yields each share that is not empty, and which of the whole batch's captions, words and
        rows it holds: {"captions": (n,), "words": (d,), "rows": (r,)}.
        """
        starts = numpy.cumsum([0, *self.sizes[:-1]])
        for first in range(min(workers, self.sizes[0])):
            sizes = [len(range(first, size, workers)) for size in self.sizes]
            rows = numpy.concatenate(
                [
                    start + numpy.arange(first, size, workers)
                    for start, size in zip(starts, self.sizes, strict=True)
                ]
            )
            words, positions = numpy.unique(self.positions[rows], return_inverse=True)
            share = Batch(
                self.features[first::workers],
                self.words[words],
                positions,
                self.targets[rows],
                [size for size in sizes if size],
            )
            captions = numpy.arange(first, self.sizes[0], workers)
            yield share, {"captions": captions, "words": words, "rows": rows}


def pack(features: numpy.ndarray, ids: numpy.ndarray, lengths: numpy.ndarray) -> Batch:
    """Pack N captions.

    features: (N, F); ids: (N, at least max(lengths)) word ids, what is beyond a caption's length
    is not looked at; lengths: (N,) each 2 or more: #START# and at least one word to predict.
    Ids are checked where captions become ids (minicap.data.captions), not at every step.
    """
    if lengths.min() < 2:
        raise ValueError("a caption must have #START# and at least one word to predict")
    order = numpy.argsort(-lengths, kind="stable")
    predicted = lengths[order] - 1
    steps = int(predicted[0])
    going = numpy.arange(steps)[:, None] < predicted  # (steps, N)
    by_step = ids[order].T
    words, positions = numpy.unique(by_step[:steps][going], return_inverse=True)
    return Batch(
        features[order],
        words,
        positions,
        by_step[1 : steps + 1][going],
        going.sum(axis=1).tolist(),
    )
