"""Self-critical training (Rennie et al. 2017): the model writes captions, and what is praised in
them grows likelier.

The loss of a drawn caption is -(r - b) sum log p, where r is its reward and b the mean reward of
the photo's other drawn captions: the leave-one-out baseline (Kool et al. 2019), which does not
depend on the caption itself, and so leaves the gradient's mean as it is. That is the loss of
training with the weight r - b for each word; docs/walkthrough/13-better.md derives it.
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
ORDERS = range(1, 5)  # runs of one to four words
SIGMA = 6.0  # words by which a caption's length may differ: CIDEr-D's deviation
SAMPLING = GenerationConfig(beam_size=1, temperature=1.0)


def ngrams(ids: Ids) -> Counter[tuple[int, ...]]:
    """How often each n-gram of one to four words occurs."""
    return Counter(tuple(ids[i : i + n]) for n in ORDERS for i in range(len(ids) - n + 1))


class CiderD:
    """CIDEr-D (Vedantam et al. 2015, section 5) of captions as ids, as pycocoevalcap has it.

    references: for each photo one caption or more; document frequencies are theirs.
    """

    def __init__(self, references: Sequence[Sequence[Ids]]):
        counted = [[ngrams(ids) for ids in some] for some in references]
        photos = Counter(run for some in counted for run in set().union(*some))
        self.top = math.log(len(references))
        self.weights = {run: self.top - math.log(count) for run, count in photos.items()}
        # For each photo: where each run stands, as (reference, weighted count); lengths of the
        # vectors of each order; numbers of pairs of words, which stand for the captions' lengths.
        self.photos = []
        for some in counted:
            places: dict[tuple[int, ...], list[tuple[int, float]]] = {}
            for number, counts in enumerate(some):
                for run, count in counts.items():
                    places.setdefault(run, []).append((number, count * self.weights[run]))
            lengths = [self.lengths(counts) for counts in some]
            pairs = [sum(n for run, n in counts.items() if len(run) == 2) for counts in some]
            self.photos.append((places, lengths, pairs))

    def lengths(self, counts: Mapping[tuple[int, ...], int]) -> list[float]:
        """The length of the vector of weighted counts, for each order (and one that is unused)."""
        squares = [0.0] * (len(ORDERS) + 1)
        for run, count in counts.items():
            squares[len(run)] += (count * self.weights.get(run, self.top)) ** 2
        return [math.sqrt(square) for square in squares]

    def __call__(self, photo: int, ids: Ids) -> float:
        """CIDEr-D of one caption, from 0 to 10."""
        places, lengths, pairs = self.photos[photo]
        counts = ngrams(ids)
        own, pair_count = self.lengths(counts), max(len(ids) - 1, 0)
        products = [[0.0] * len(own) for _ in lengths]
        for run, count in counts.items():
            value = count * self.weights.get(run, self.top)
            for number, theirs in places.get(run, ()):
                products[number][len(run)] += min(value, theirs) * theirs
        total = 0.0
        for product, other, their_pairs in zip(products, lengths, pairs, strict=True):
            alike = sum(product[n] / (own[n] * other[n]) for n in ORDERS if own[n] * other[n] > 0)
            total += alike * math.exp(-((pair_count - their_pairs) ** 2) / (2 * SIGMA**2))
        return 10 * total / len(ORDERS) / len(lengths)


def sentence_bleu(ids: Ids, references: Sequence[Counter], lengths: Sequence[int]) -> float:
    """BLEU-4 of one caption (Papineni et al. 2002), from 0 to 1, each precision smoothed by a
    hundredth so that one without a hit does not make all of it 0.

    references: the `runs` of each; lengths: how many words each has.
    """
    correct, tries = [0.0] * (len(ORDERS) + 1), [0.0] * (len(ORDERS) + 1)
    for run, count in ngrams(ids).items():
        tries[len(run)] += count
        correct[len(run)] += min(count, max(counts.get(run, 0) for counts in references))
    precision = math.prod((correct[n] + 0.01) / (tries[n] + 0.01) for n in ORDERS) ** 0.25
    closest = min(lengths, key=lambda length: (abs(length - len(ids)), length))
    return precision * min(1.0, math.exp(1 - closest / max(len(ids), 1)))


def as_ids(split: Split, vocabulary: Vocabulary, end: bool) -> list[list[list[int]]]:
    """All captions of each photo of `split`, uncut, as ids, with #END# if `end` is true. Each word
    that the vocabulary lacks has a negative number of its own, which no model writes."""
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
    """Samples captions of training images, and computes their rewards.

    #END# counts as a word of the rewards: stopping in the middle must cost something.

    Attributes:
        samples: captions sampled for each image.
        constraints: on these captions.
    """

    def __init__(self, dataset: Dataset, config: TrainingConfig):
        """Prepare the references of the training images."""
        v = dataset.vocabulary
        references = as_ids(dataset.splits["train"], v, end=True)
        self.cider, self.bleu = CiderD(references), config.bleu_reward
        self.samples = config.samples_per_image
        self.references = [
            ([ngrams(ids) for ids in some], [len(ids) for ids in some]) for some in references
        ]
        self.constraints = Constraints(v.start, v.end, (v.pad,), config.max_length - 1)

    def reward(self, image: int, ids: Ids) -> float:
        """CIDEr-D plus `bleu_reward` times BLEU-4 of a caption of image number `image`."""
        reward = self.cider(image, ids)
        if self.bleu:
            reward += self.bleu * sentence_bleu(ids, *self.references[image])
        return reward

    def batch(
        self,
        decoder: Decoder,
        features: Array,
        images: numpy.ndarray,
        rng: numpy.random.Generator,
    ) -> tuple[Batch, numpy.ndarray]:
        """Sample captions, and weight each word by its caption's advantage.

        Args:
            decoder: samples the captions.
            features: (N, F), scaled.
            images: (N,) rows of the training split.
            rng: random number generator.

        Returns:
            A batch of the sampled captions, and the rewards (N, samples).
        """
        sampled = beam_search([decoder], [features], self.constraints, SAMPLING, self.samples, rng)
        start, end = self.constraints.start, self.constraints.end
        # A caption that was cut has no #END#: it has one probability less.
        captions = [
            [start, *c.ids, *[end] * (len(c.log_probabilities) - len(c.ids))]
            for some in sampled
            for c in some
        ]
        owners = numpy.repeat(numpy.arange(len(images)), self.samples)
        rewards = numpy.array(
            [self.reward(images[n], ids[1:]) for n, ids in zip(owners, captions, strict=True)]
        ).reshape(len(images), self.samples)
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) * (
            self.samples / (self.samples - 1)
        )
        lengths = numpy.array([len(ids) for ids in captions])
        ids = numpy.zeros((len(captions), lengths.max()), dtype=int)
        for row, caption in zip(ids, captions, strict=True):
            row[: len(caption)] = caption
        weights = advantages.ravel().astype(features.dtype)
        return pack(to_host(features)[owners], ids, lengths, weights), rewards
