"""Captions of different lengths, packed: only real words, longest caption first, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Batch:
    """N captions with R words to predict, D of them distinct, as arrays on the host.

    With captions "s a cat e" and "s dogs e" (s and e: #START# and #END#), the inputs lie as
    s s | a dogs | cat and the targets as a dogs | cat e | e; batch_sizes = [2, 2, 1].
    """

    features: numpy.ndarray  # (N, F) float32, in the captions' order, longest first
    words: numpy.ndarray  # (D,) the distinct words among the inputs, ascending
    positions: numpy.ndarray  # (R,) inputs, as indexes into `words`
    captions: numpy.ndarray  # (R,) which caption each input belongs to
    targets: numpy.ndarray  # (R,) the word that follows each input
    batch_sizes: list[int]  # how many captions are still going at each step; the sum is R
    weights: numpy.ndarray | None = None  # (R,) what each word's loss counts; None: 1

    @property
    def counts(self) -> dict[str, int]:
        """N, D and R: {"captions": N, "words": D, "rows": R}."""
        captions, words, rows = self.features, self.words, self.targets
        return {"captions": len(captions), "words": len(words), "rows": len(rows)}

    def split(self, workers: int) -> Iterator[tuple["Batch", dict[str, numpy.ndarray]]]:
        """As many words to each worker, as nearly as whole captions allow; captions of like
        lengths go to the same one, so that only one of them takes the many small last steps.

        Yields each part that is not empty, and which of the whole batch's captions, words and
        rows it holds: {"captions": (n,), "words": (d,), "rows": (r,)}.
        """
        batch_sizes = numpy.array(self.batch_sizes)
        going = numpy.arange(batch_sizes[0]) < batch_sizes[:, None]  # (steps, N)
        row = (numpy.cumsum(batch_sizes) - batch_sizes)[:, None] + numpy.arange(batch_sizes[0])
        lengths = going.sum(axis=0)
        middle = numpy.cumsum(lengths) - lengths / 2  # of each caption, counted in words
        owners = (middle * workers / len(self.targets)).astype(int)
        for owner in numpy.unique(owners):
            captions = numpy.flatnonzero(owners == owner)
            own = slice(captions[0], captions[-1] + 1)
            rows = row[:, own][going[:, own]]
            positions = self.positions[rows]
            used = numpy.zeros(len(self.words), dtype=bool)
            used[positions] = True
            part = Batch(
                self.features[own],
                self.words[used],
                (numpy.cumsum(used) - 1)[positions],
                self.captions[rows] - captions[0],
                self.targets[rows],
                going[: lengths[captions[0]], own].sum(axis=1).tolist(),
                None if self.weights is None else self.weights[rows],
            )
            index = {"captions": captions, "words": numpy.flatnonzero(used), "rows": rows}
            yield part, index


@dataclass(frozen=True)
class ImageBatch:
    """N photos that the model writes captions of itself, to learn from."""

    features: numpy.ndarray  # (N, F) float32
    images: numpy.ndarray  # (N,) their rows in the split

    @property
    def counts(self) -> dict[str, int]:
        """N, as Batch has it."""
        return {"captions": len(self.images)}

    def split(self, workers: int) -> Iterator[tuple["ImageBatch", dict[str, numpy.ndarray]]]:
        """As many to each worker; yields as Batch.split."""
        for rows in numpy.array_split(numpy.arange(len(self.images)), workers):
            if len(rows):
                yield ImageBatch(self.features[rows], self.images[rows]), {"captions": rows}


def pack(
    features: numpy.ndarray,
    ids: numpy.ndarray,
    lengths: numpy.ndarray,
    weights: numpy.ndarray | None = None,
) -> Batch:
    """Pack N captions.

    features: (N, F); ids: (N, at least max(lengths)) word ids, what is beyond a caption's length
    is not looked at; lengths: (N,) each 2 or more: #START# and at least one word to predict;
    weights: (N,) what each caption counts, or None.
    That ids are in the vocabulary is not looked at: minicap.data.vocabulary makes no others.
    """
    if lengths.min() < 2:
        raise ValueError("a caption must have #START# and at least one word to predict")
    order = numpy.argsort(-lengths, kind="stable")
    predicted = lengths[order] - 1
    steps = int(predicted[0])
    going = numpy.arange(steps)[:, None] < predicted  # (steps, N)
    by_step = ids[order].T
    words, positions = numpy.unique(by_step[:steps][going], return_inverse=True)
    captions = numpy.nonzero(going)[1]
    return Batch(
        features[order],
        words,
        positions,
        captions,
        by_step[1 : steps + 1][going],
        going.sum(axis=1).tolist(),
        None if weights is None else weights[order][captions],
    )
