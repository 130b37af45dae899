"""Baselines: captions made without a model, to compare a model's scores with.

nearest neighbours     a caption of the most similar training images, see `consensus`
shuffled features      the model's captions, each given to another image
most frequent caption  the most frequent training caption, given to every image

A model that is not above the nearest neighbours is no better than a search of the training set. A
model that is not above the shuffled features does not use the image.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence

import numpy
from tqdm import tqdm

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.tokenisers import course

Tokenise = Callable[[str], list[str]]
MAX_N = 4  # n-grams of one to four words, as in BLEU and CIDEr
BATCH = 512  # images whose neighbours are searched at once


def baselines(
    captions: Sequence[str],
    images: EvaluationSet,
    train: EvaluationSet | None,
    neighbours: int,
    seed: int,
    tokenise: Tokenise = course,
) -> dict[str, list[str]]:
    """Make the captions of each baseline.

    Features are compared as the encoder computed them, not as a model scales them, so the nearest
    neighbours are the same for all models.

    Args:
        captions: the model's captions, one per image.
        images: the images to caption.
        train: the training set, or None to leave out the baselines that need it.
        neighbours: how many training images the nearest-neighbour baseline compares.
        seed: of the shuffling.
        tokenise: splits a caption into words.

    Returns:
        Baseline -> its captions, one per image.
    """
    found = {}
    if train and train.features is not None and images.features is not None:
        rows = nearest(images.features, train.features, neighbours)
        found[f"nearest neighbours ({rows.shape[1]})"] = consensus(train.captions, rows, tokenise)
    # Given another image's features, the model generates that image's caption.
    found["shuffled features"] = [captions[row] for row in others(len(captions), seed)]
    if train:
        found["most frequent caption"] = [most_frequent_caption(train.captions, tokenise)] * len(
            captions
        )
    return found


def most_frequent_caption(captions: Sequence[Sequence[str]], tokenise: Tokenise = course) -> str:
    """Find the most frequent caption; in a tie, the first in alphabetical order.

    Args:
        captions: the captions of each image.
        tokenise: splits a caption into words.

    Returns:
        Its words in lower case, joined by spaces.
    """
    counts = Counter(" ".join(tokenise(text)) for texts in captions for text in texts)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def others(number: int, seed: int) -> numpy.ndarray:
    """Assign to each of `number` images another one, by a random cycle through all of them.

    Returns:
        (number,) a permutation that maps no image to itself.
    """
    order = numpy.random.default_rng(seed).permutation(number)
    other = numpy.empty_like(order)
    other[order] = numpy.roll(order, 1)
    return other


def nearest(features: numpy.ndarray, train: numpy.ndarray, count: int) -> numpy.ndarray:
    """Find the training images with the most similar features, by cosine similarity.

    Args:
        features: (N, F) of the images.
        train: (T, F) of the training images.
        count: how many to find for each image.

    Returns:
        (N, min(count, T)) rows of `train`, most similar first.
    """

    def normalised(array):
        wide = array.astype(numpy.float32)
        return wide / numpy.maximum(numpy.linalg.norm(wide, axis=1, keepdims=True), 1e-12)

    columns, count = normalised(train).T, min(count, len(train))
    found = numpy.empty((len(features), count), int)
    for start in range(0, len(features), BATCH):
        distance = -(normalised(features[start : start + BATCH]) @ columns)
        rows = numpy.argpartition(distance, count - 1, axis=1)[:, :count]
        order = numpy.take_along_axis(distance, rows, axis=1).argsort(axis=1, kind="stable")
        found[start : start + BATCH] = numpy.take_along_axis(rows, order, axis=1)
    return found


def consensus(
    captions: Sequence[Sequence[str]], neighbours: numpy.ndarray, tokenise: Tokenise = course
) -> list[str]:
    """Choose the consensus caption of each image's neighbours.

    That is the caption with the highest mean similarity to the captions of the other neighbours
    (Devlin et al. 2015, "Exploring Nearest Neighbor Approaches for Image Captioning"). The
    similarity of two captions is the sum over n of the cosines of their `ngram_vectors`.

    Args:
        captions: the captions of each training image.
        neighbours: (N, K) rows of `captions`.
        tokenise: splits a caption into words.

    Returns:
        N captions.
    """
    texts = [text for said in captions for text in said]
    image = numpy.repeat(numpy.arange(len(captions)), [len(said) for said in captions])
    # The captions of image k are begin[k] to begin[k + 1]; the n-grams of caption c are the
    # entries first[c] to first[c + 1].
    begin = numpy.searchsorted(image, numpy.arange(len(captions) + 1))
    text, ngram, value = ngram_vectors(texts, image, tokenise)
    first = numpy.searchsorted(text, numpy.arange(len(texts) + 1))
    chosen = []
    for row in progress(neighbours, "nearest neighbours"):
        candidates = numpy.concatenate([numpy.arange(begin[k], begin[k + 1]) for k in row])
        entries = numpy.concatenate([numpy.arange(first[c], first[c + 1]) for c in candidates])
        candidate = numpy.repeat(numpy.arange(len(candidates)), numpy.diff(first)[candidates])
        neighbour = numpy.repeat(numpy.arange(len(row)), numpy.diff(begin)[row])  # per candidate
        ngrams, local = numpy.unique(ngram[entries], return_inverse=True)
        # The sum of the cosines with many vectors is one dot product with the vectors' sum: here
        # the sum over all candidates less those of the candidate's own image.
        weight, place = value[entries], neighbour[candidate] * len(ngrams) + local
        others_sum = numpy.bincount(local, weight)[local] - numpy.bincount(place, weight)[place]
        similarity = numpy.bincount(candidate, weight * others_sum, len(candidates))
        others_count = len(candidates) - numpy.bincount(neighbour)[neighbour]
        best = numpy.argmax(similarity / numpy.maximum(1, others_count))
        chosen.append(texts[candidates[best]])
    return chosen


def progress(items: Sequence | numpy.ndarray, label: str) -> tqdm:
    """Iterate over items with a progress bar, which only a terminal shows."""
    return tqdm(items, label, leave=False, disable=not sys.stderr.isatty())


def ngram_vectors(
    texts: Sequence[str], image: numpy.ndarray, tokenise: Tokenise = course
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Compute the TF-IDF vectors of captions, as CIDEr does (Vedantam et al. 2015, equation 1).

    An n-gram's weight is its count times log(images / images whose captions contain it). For each
    n from 1 to MAX_N, a caption's n-grams form one vector of length 1.

    Args:
        texts: C captions.
        image: (C,) the image of each caption, ascending.
        tokenise: splits a caption into words.

    Returns:
        The entries of the sparse vectors, sorted by caption: the caption's row, the n-gram's
        number and its weight, all of shape (entries,).
    """
    numbers: dict[tuple[str, ...], int] = {}
    keys = numpy.fromiter(
        (
            text << 32 | numbers.setdefault(tuple(words[i : i + n]), len(numbers))
            for text, words in enumerate(map(tokenise, progress(texts, "training captions")))
            for n in range(1, MAX_N + 1)
            for i in range(len(words) - n + 1)
        ),
        numpy.int64,
    )
    keys, counts = numpy.unique(keys, return_counts=True)
    text, ngram = keys >> 32, keys & 0xFFFFFFFF
    frequency = numpy.bincount(numpy.unique(image[text] << 32 | ngram) & 0xFFFFFFFF)
    value = counts * numpy.log((image[-1] + 1) / frequency[ngram])
    length = numpy.array([len(words) for words in numbers], int)[ngram]
    vector = text * MAX_N + length - 1
    value /= numpy.sqrt(numpy.maximum(numpy.bincount(vector, value**2), 1e-12))[vector]
    return text, ngram, value
