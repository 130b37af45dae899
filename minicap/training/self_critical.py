"""Self-critical sequence training: policy gradients with CIDEr-D as the reward.

The model samples captions of each training image. The loss of a sampled caption is
-(Q - B) sum log p over its words (REINFORCE with a baseline; Rennie et al. 2017), where Q is its
reward and B the mean reward of the image's other sampled captions (the leave-one-out baseline of
Kool et al. 2019; Rennie et al. take the reward of the greedy caption). Because B does not depend on
the caption itself, the gradient stays unbiased. This is the supervised loss with the weight Q - B
for each word; docs/walkthrough/13-better.md derives it.
"""

import numpy

from minicap.backend import Array, to_host
from minicap.data.batches import Batch, pack
from minicap.data.dataset import Dataset
from minicap.generation.beam_search import beam_search
from minicap.generation.config import Constraints, GenerationConfig
from minicap.model.decoder import Decoder
from minicap.training.config import TrainingConfig
from minicap.training.rewards import CiderD, Ids, as_ids, ngrams, sentence_bleu

SAMPLING = GenerationConfig(beam_size=1, temperature=1.0)


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
        """Sample captions, and weight each of their words by the caption's advantage Q - B.

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
        # Q - B = Q - (sum - Q) / (n - 1) = (Q - mean) n / (n - 1)
        n = self.samples
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) * (n / (n - 1))
        lengths = numpy.array([len(ids) for ids in captions])
        ids = numpy.zeros((len(captions), lengths.max()), dtype=int)
        for row, caption in zip(ids, captions, strict=True):
            row[: len(caption)] = caption
        weights = advantages.ravel().astype(features.dtype)
        return pack(to_host(features)[owners], ids, lengths, weights), rewards
