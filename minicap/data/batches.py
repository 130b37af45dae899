"""Packed batches: captions of different lengths without padding, longest first, step by step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Batch:
    """N captions with R words to predict, packed without padding.

    `pack` makes NumPy arrays; a copy on a GPU has CuPy's. The inputs and targets of step 0 come
    first, one for each caption, then those of step 1 for the captions that are long enough, and so
    on (the layout of PyTorch's ``PackedSequence``).

    Attributes:
        features: (N, F) float32 image features, one row per caption, longest caption first.
        words: (S,) the distinct ids among the inputs, ascending.
        positions: (R,) the inputs as indices into ``words``.
        captions: (R,) the caption (0..N-1) that each input belongs to.
        targets: (R,) the id that follows each input.
        batch_sizes: the number of captions at each step, never increasing; their sum is R.
        weights: (R,) the weight of each target's loss, or None for all ones.

    Example:
        With the captions "s a cat e" and "s dogs e" (s and e stand for #START# and #END#) the
        inputs are ``s s | a dogs | cat``, the targets are ``a dogs | cat e | e`` and
        ``batch_sizes`` is ``[2, 2, 1]``.
    """

    features: numpy.ndarray
    words: numpy.ndarray
    positions: numpy.ndarray
    captions: numpy.ndarray
    targets: numpy.ndarray
    batch_sizes: list[int]
    weights: numpy.ndarray | None = None

    @property
    def counts(self) -> dict[str, int]:
        """The numbers N, S and R: ``{"captions": N, "words": S, "rows": R}``."""
        captions, words, rows = self.features, self.words, self.targets
        return {"captions": len(captions), "words": len(words), "rows": len(rows)}

    def split(self, workers: int) -> Iterator[tuple["Batch", dict[str, numpy.ndarray]]]:
        """Split the batch into parts with nearly the same number of words.

        Captions stay whole. Captions of similar length go to the same worker, so only one worker
        runs the many small last steps.

        Args:
            workers: the largest number of parts.

        Yields:
            Each part that is not empty, and its indices into this batch:
            ``{"captions": (n,), "words": (d,), "rows": (r,)}``.
        """
        batch_sizes = numpy.array(self.batch_sizes)
        active = numpy.arange(batch_sizes[0]) < batch_sizes[:, None]  # (steps, N)
        row = (numpy.cumsum(batch_sizes) - batch_sizes)[:, None] + numpy.arange(batch_sizes[0])
        lengths = active.sum(axis=0)
        middle = numpy.cumsum(lengths) - lengths / 2  # of each caption, counted in words
        assigned = (middle * workers / len(self.targets)).astype(int)
        for worker in numpy.unique(assigned):
            captions = numpy.flatnonzero(assigned == worker)
            own = slice(captions[0], captions[-1] + 1)
            rows = row[:, own][active[:, own]]
            positions = self.positions[rows]
            used = numpy.zeros(len(self.words), dtype=bool)
            used[positions] = True
            part = Batch(
                self.features[own],
                self.words[used],
                (numpy.cumsum(used) - 1)[positions],
                self.captions[rows] - captions[0],
                self.targets[rows],
                active[: lengths[captions[0]], own].sum(axis=1).tolist(),
                None if self.weights is None else self.weights[rows],
            )
            index = {"captions": captions, "words": numpy.flatnonzero(used), "rows": rows}
            yield part, index


@dataclass(frozen=True)
class ImageBatch:
    """N images for self-critical training, in which the model samples their captions itself.

    Attributes:
        features: (N, F) float32 image features.
        images: (N,) the images' rows in their `Split`.
    """

    features: numpy.ndarray
    images: numpy.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """The number of images, under the key that `Batch.counts` uses: ``{"captions": N}``."""
        return {"captions": len(self.images)}

    def split(self, workers: int) -> Iterator[tuple["ImageBatch", dict[str, numpy.ndarray]]]:
        """Split the batch into parts of equal size, as `Batch.split` does.

        Args:
            workers: the largest number of parts.

        Yields:
            Each part that is not empty, and its indices into this batch: ``{"captions": (n,)}``.
        """
        for rows in numpy.array_split(numpy.arange(len(self.images)), workers):
            if len(rows):
                yield ImageBatch(self.features[rows], self.images[rows]), {"captions": rows}


def pack(
    features: numpy.ndarray,
    ids: numpy.ndarray,
    lengths: numpy.ndarray,
    weights: numpy.ndarray | None = None,
) -> Batch:
    """Pack N captions into a batch.

    Args:
        features: (N, F) float32 features of each caption's image.
        ids: (N, T) token ids, T >= max(lengths). Padding is never read.
        lengths: (N,) each 2 or more: #START# and at least one token to predict.
        weights: (N,) the weight of each caption's loss, or None for all ones.

    Returns:
        The batch. The ids are not compared with a vocabulary.

    Raises:
        ValueError: a caption is shorter than 2.
    """
    if lengths.min() < 2:
        raise ValueError("a caption must have #START# and at least one word to predict")
    order = numpy.argsort(-lengths, kind="stable")
    predicted = lengths[order] - 1
    steps = int(predicted[0])
    active = numpy.arange(steps)[:, None] < predicted  # (steps, N)
    by_step = ids[order].T
    words, positions = numpy.unique(by_step[:steps][active], return_inverse=True)
    captions = numpy.nonzero(active)[1]
    return Batch(
        features[order],
        words,
        positions,
        captions,
        by_step[1 : steps + 1][active],
        active.sum(axis=1).tolist(),
        None if weights is None else weights[order][captions],
    )
