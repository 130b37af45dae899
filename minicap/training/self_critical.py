"""Self-critical sequence training: policy gradients with CIDEr-D as the reward.

The model samples captions of each training image. The loss of a sampled caption is
-(r - b) sum log p over its words (REINFORCE with a baseline; Rennie et al. 2017), where r is its
reward and b the mean reward of the image's other sampled captions (the leave-one-out baseline of
Kool et al. 2019). Because b does not depend on the caption itself, the gradient stays unbiased.
This is the supervised loss with the weight r - b for each word; docs/walkthrough/13-better.md
derives it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import Array, to_host
from minicap.data.batches import Batch, pack
from minicap.data.dataset import Dataset, Split
from minicap.data.vocabulary import Vocabulary, tokenise
from minicap.generation.beam_search import beam_search
from minicap.generation.config import Constraints, GenerationConfig
from minicap.model.decoder import Decoder
from minicap.training.config import TrainingConfig

Ids = Sequence[int]
ORDERS = range(1, 5)  # n-grams of one to four words
SIGMA = 6.0  # CIDEr-D's standard deviation of the difference in length, in words
SAMPLING = GenerationConfig(beam_size=1, temperature=1.0)


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
            [known.setdefault(word, -1 - len(known)) for word in tokenise(text)]
            + [vocabulary.end] * end
            for text in texts
        ]
        for texts in split.captions
    ]


class Critic:
    """Sample captions of training images and compute their rewards.

    #END# counts as a word in the rewards, so that ending a caption too early lowers them.

    Attributes:
        samples: number of captions to sample for each image.
        constraints: limits on these captions.
        cider: CIDEr-D with the training references.
        bleu_reward: weight of BLEU-4 in the reward.
        references: for each image, `ngrams` and the length of each of its references.
    """

    def __init__(self, dataset: Dataset, config: TrainingConfig):
        """Count the n-grams of the training captions.

        Args:
            dataset: the data, with the split "train".
            config: for `samples_per_image`, `bleu_reward` and `max_length`.
        """
        v = dataset.vocabulary
        references = as_ids(dataset.splits["train"], v, end=True)
        self.cider, self.bleu_reward = CiderD(references), config.bleu_reward
        self.samples = config.samples_per_image
        self.references = [
            ([ngrams(ids) for ids in captions], [len(ids) for ids in captions])
            for captions in references
        ]
        # #UNK# may be sampled: it is in no reference, so it earns no reward.
        self.constraints = Constraints(v.start, v.end, (v.pad,), config.max_length - 1)

    def reward(self, image: int, ids: Ids) -> float:
        """Compute the reward of a caption: CIDEr-D plus `bleu_reward` times BLEU-4.

        Args:
            image: the image's row in the training split.
            ids: the caption, with #END# unless it was truncated.
        """
        reward = self.cider(image, ids)
        if self.bleu_reward:
            reward += self.bleu_reward * sentence_bleu(ids, *self.references[image])
        return reward

    def batch(
        self,
        decoder: Decoder,
        features: Array,
        images: numpy.ndarray,
        rng: numpy.random.Generator,
    ) -> tuple[Batch, numpy.ndarray]:
        """Sample captions, and weight each of their words by the caption's advantage r - b.

        Args:
            decoder: the decoder to sample from.
            features: (N, F) scaled features, on the decoder's device.
            images: (N,) the images' rows in the training split.
            rng: random number generator.

        Returns:
            A batch of the sampled captions, and their rewards (N, samples).
        """
        sampled = beam_search([decoder], [features], self.constraints, SAMPLING, self.samples, rng)
        start, end = self.constraints.start, self.constraints.end
        # A truncated caption has no #END#, and so one log-probability less.
        captions = [
            [start, *c.ids, *[end] * (len(c.log_probabilities) - len(c.ids))]
            for candidates in sampled
            for c in candidates
        ]
        owners = numpy.repeat(numpy.arange(len(images)), self.samples)
        rewards = numpy.array(
            [self.reward(images[n], ids[1:]) for n, ids in zip(owners, captions, strict=True)]
        ).reshape(len(images), self.samples)
        # r - b = r - (sum - r) / (samples - 1) = (r - mean) samples / (samples - 1)
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) * (
            self.samples / (self.samples - 1)
        )
        lengths = numpy.array([len(ids) for ids in captions])
        ids = numpy.zeros((len(captions), lengths.max()), dtype=int)
        for row, caption in zip(ids, captions, strict=True):
            row[: len(caption)] = caption
        weights = advantages.ravel().astype(features.dtype)
        return pack(to_host(features)[owners], ids, lengths, weights), rewards
