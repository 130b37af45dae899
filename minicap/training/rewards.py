"""Scores of single captions as token ids: the rewards of self-critical training."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from minicap.data.dataset import Split
from minicap.data.vocabulary import Vocabulary

Ids = Sequence[int]
ORDERS = range(1, 5)  # n-grams of one to four words
SIGMA = 6.0  # CIDEr-D's standard deviation of the difference in length, in words


def ngrams(ids: Ids) -> Counter[tuple[int, ...]]:
    """Count the n-grams of one to four words in a caption."""
    return Counter(tuple(ids[i : i + n]) for n in ORDERS for i in range(len(ids) - n + 1))


class CiderD:
    """Compute CIDEr-D (Vedantam et al. 2015, section 5) of captions as token ids.

    The values equal those of pycocoevalcap.

    Attributes:
        max_weight: the log of the number of images, the weight of an n-gram in no reference.
        weights: inverse document frequency of each n-gram in the references.
        images: for each image, where each n-gram occurs, as (reference, weighted count) pairs; the
            references' `lengths`; and their numbers of bigrams, which stand for their lengths.
    """

    def __init__(self, references: Sequence[Sequence[Ids]]):
        """Count the n-grams of all references.

        Args:
            references: one or more captions of each image. The document frequency of an n-gram is
                the number of images with a reference that contains it.
        """
        counted = [[ngrams(ids) for ids in captions] for captions in references]
        frequencies = Counter(ngram for image in counted for ngram in set().union(*image))
        self.max_weight = math.log(len(references))
        self.weights = {n: self.max_weight - math.log(count) for n, count in frequencies.items()}
        self.images = []
        for image in counted:
            places: dict[tuple[int, ...], list[tuple[int, float]]] = {}
            for number, counts in enumerate(image):
                for ngram, count in counts.items():
                    weighted = count * self.weights[ngram]
                    places.setdefault(ngram, []).append((number, weighted))
            lengths = [self.lengths(counts) for counts in image]
            bigrams = [sum(c for ngram, c in counts.items() if len(ngram) == 2) for counts in image]
            self.images.append((places, lengths, bigrams))

    def lengths(self, counts: Mapping[tuple[int, ...], int]) -> list[float]:
        """Return the norm of the vector of weighted n-gram counts for each n; item 0 is unused."""
        squares = [0.0] * (len(ORDERS) + 1)
        for ngram, count in counts.items():
            squares[len(ngram)] += (count * self.weights.get(ngram, self.max_weight)) ** 2
        return [math.sqrt(square) for square in squares]

    def __call__(self, image: int, ids: Ids) -> float:
        """Compute CIDEr-D, from 0 to 10, of a caption of image number `image`."""
        places, lengths, bigrams = self.images[image]
        counts = ngrams(ids)
        own_lengths, own_bigrams = self.lengths(counts), max(len(ids) - 1, 0)
        products = [[0.0] * len(own_lengths) for _ in lengths]
        for ngram, count in counts.items():
            value = count * self.weights.get(ngram, self.max_weight)
            for number, weighted in places.get(ngram, ()):
                products[number][len(ngram)] += min(value, weighted) * weighted
        total = 0.0
        for product, other_lengths, other_bigrams in zip(products, lengths, bigrams, strict=True):
            norms = [own * other for own, other in zip(own_lengths, other_lengths, strict=True)]
            similarity = sum(product[n] / norms[n] for n in ORDERS if norms[n] > 0)
            total += similarity * math.exp(-((own_bigrams - other_bigrams) ** 2) / (2 * SIGMA**2))
        return 10 * total / len(ORDERS) / len(lengths)


def sentence_bleu(ids: Ids, references: Sequence[Counter], lengths: Sequence[int]) -> float:
    """Compute smoothed BLEU-4 of one caption (Papineni et al. 2002).

    Each count is smoothed by 0.01, so that one precision of 0 does not make the whole score 0. An
    n-gram order for which the caption is too short has precision 1.

    Args:
        ids: the caption.
        references: `ngrams` of each reference.
        lengths: the number of words of each reference.

    Returns:
        BLEU-4, from 0 to 1.
    """
    correct, total = [0.0] * (len(ORDERS) + 1), [0.0] * (len(ORDERS) + 1)
    for ngram, count in ngrams(ids).items():
        total[len(ngram)] += count
        correct[len(ngram)] += min(count, max(counts.get(ngram, 0) for counts in references))
    precision = math.prod((correct[n] + 0.01) / (total[n] + 0.01) for n in ORDERS) ** 0.25
    closest = min(lengths, key=lambda length: (abs(length - len(ids)), length))
    return precision * min(1.0, math.exp(1 - closest / max(len(ids), 1)))


def as_ids(split: Split, vocabulary: Vocabulary, end: bool) -> list[list[list[int]]]:
    """Convert all captions of a split to ids, without truncating them.

    Args:
        split: the captions, a list of texts for each image.
        vocabulary: the known words. Every other word gets a negative id of its own, which no
            generated caption contains.
        end: append #END# to each caption.
    """
    known = dict(vocabulary.ids)
    return [
        [
            [known.setdefault(word, -1 - len(known)) for word in vocabulary.tokenise(text)]
            + [vocabulary.end] * end
            for text in texts
        ]
        for texts in split.captions
    ]
