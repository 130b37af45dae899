"""What captions are worth that come without a model: floors to hold its scores against.

nearest neighbours    a caption of the training photos that look most alike, see `consensus`
shuffled features     the model's captions, each under another picture: what it says without looking
most frequent caption the one of train, under every picture

A captioner that is not above the first has learned less than a look-up knows; one that is not above
the second has not looked at all.
"""

import sys
from collections import Counter
from collections.abc import Sequence

import numpy
from tqdm import tqdm

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.vocabulary import tokenise

ORDERS = 4  # runs of one to four words, as in BLEU and CIDEr
TOGETHER = 512  # photos whose neighbours are looked for at once


def baselines(
    captions: Sequence[str],
    pictures: EvaluationSet,
    train: EvaluationSet | None,
    neighbours: int,
    seed: int,
) -> dict[str, list[str]]:
    """Writer -> captions of `pictures`; without those of train, where that is None.

    captions: the model's, in the pictures' order; neighbours: training photos that are asked; seed:
    of the shuffling. Features are compared as the encoder made them, not as a model scales them:
    the floor is the same for all models.
    """
    found = {}
    if train and train.features is not None and pictures.features is not None:
        rows = nearest(pictures.features, train.features, neighbours)
        found[f"nearest neighbours ({rows.shape[1]})"] = consensus(train.captions, rows)
    # With another's features a model writes what it wrote for the other.
    found["shuffled features"] = [captions[row] for row in others(len(captions), seed)]
    if train:
        found["most frequent caption"] = [most_frequent_caption(train.captions)] * len(captions)
    return found


def most_frequent_caption(captions: Sequence[Sequence[str]]) -> str:
    """The caption that occurs most often, as words; of several, the first in the alphabet.
    captions: photo by photo."""
    counts = Counter(" ".join(tokenise(text)) for texts in captions for text in texts)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def others(number: int, seed: int) -> numpy.ndarray:
    """For each of `number` pictures another one, and each once: a random cycle, (number,)."""
    order = numpy.random.default_rng(seed).permutation(number)
    other = numpy.empty_like(order)
    other[order] = numpy.roll(order, 1)
    return other


def nearest(features: numpy.ndarray, among: numpy.ndarray, count: int) -> numpy.ndarray:
    """The rows of `among` (P, F) that are nearest by cosine to each row of `features` (N, F),
    nearest first: (N, min(count, P))."""

    def unit(array):
        wide = array.astype(numpy.float32)
        return wide / numpy.maximum(numpy.linalg.norm(wide, axis=1, keepdims=True), 1e-12)

    there, count = unit(among).T, min(count, len(among))
    found = numpy.empty((len(features), count), int)
    for start in range(0, len(features), TOGETHER):
        apart = -(unit(features[start : start + TOGETHER]) @ there)
        rows = numpy.argpartition(apart, count - 1, axis=1)[:, :count]
        order = numpy.take_along_axis(apart, rows, axis=1).argsort(axis=1, kind="stable")
        found[start : start + TOGETHER] = numpy.take_along_axis(rows, order, axis=1)
    return found


def consensus(captions: Sequence[Sequence[str]], neighbours: numpy.ndarray) -> list[str]:
    """Of all captions of a picture's neighbours the one most like those of the other neighbours.

    captions: photo by photo; neighbours: (N, K) rows of `captions`. Returns N captions.
    From Devlin et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning". Likeness
    is the mean of the cosines of `run_vectors`; and the mean of cosines with many vectors is one
    product with their sum.
    """
    texts = [text for some in captions for text in some]
    photo = numpy.repeat(numpy.arange(len(captions)), [len(some) for some in captions])
    begin = numpy.searchsorted(photo, numpy.arange(len(captions) + 1))  # each photo's first caption
    text, run, value = run_vectors(texts, photo)
    first = numpy.searchsorted(text, numpy.arange(len(texts) + 1))  # each caption's first row
    chosen = []
    for row in progress(neighbours, "nearest neighbours"):
        candidates = numpy.concatenate([numpy.arange(begin[k], begin[k + 1]) for k in row])
        entries = numpy.concatenate([numpy.arange(first[c], first[c + 1]) for c in candidates])
        owner = numpy.repeat(numpy.arange(len(candidates)), numpy.diff(first)[candidates])
        home = numpy.repeat(numpy.arange(len(row)), numpy.diff(begin)[row])  # of each candidate
        words, local = numpy.unique(run[entries], return_inverse=True)
        mine, place = value[entries], home[owner] * len(words) + local
        apart = numpy.bincount(local, mine)[local] - numpy.bincount(place, mine)[place]
        likeness = numpy.bincount(owner, mine * apart, len(candidates))
        strangers = len(candidates) - numpy.bincount(home)[home]
        chosen.append(texts[candidates[numpy.argmax(likeness / numpy.maximum(1, strangers))]])
    return chosen


def progress(some: Sequence | numpy.ndarray, what: str) -> tqdm:
    """The same, with a bar on the way, where somebody looks."""
    return tqdm(some, what, leave=False, disable=not sys.stderr.isatty())


def run_vectors(
    texts: Sequence[str], photo: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Captions as CIDEr sees them (Vedantam et al. 2015): each run of 1 to 4 words with a weight,
    which is the greater the fewer photos it is said of; the runs of one length make a unit vector.

    photo: (C,) which photo each of the C texts is of. Returns three arrays, a row for each
    different run of a text, in the texts' order: the text, the run's number, the weight.
    """
    numbers: dict[tuple[str, ...], int] = {}
    keys = numpy.fromiter(
        (
            text << 32 | numbers.setdefault(tuple(words[i : i + n]), len(numbers))
            for text, words in enumerate(map(tokenise, progress(texts, "captions of train")))
            for n in range(1, ORDERS + 1)
            for i in range(len(words) - n + 1)
        ),
        numpy.int64,
    )
    keys, times = numpy.unique(keys, return_counts=True)
    text, run = keys >> 32, keys & 0xFFFFFFFF
    photos = numpy.bincount(numpy.unique(photo[text] << 32 | run) & 0xFFFFFFFF)
    value = times * numpy.log((photo[-1] + 1) / photos[run])
    length = numpy.array([len(words) for words in numbers], int)[run]
    kind = text * ORDERS + length - 1
    value /= numpy.sqrt(numpy.maximum(numpy.bincount(kind, value**2), 1e-12))[kind]
    return text, run, value
