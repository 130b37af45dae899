"""What one worker computes: gradients for its part of a batch, and its part of Adam's update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy

from minicap.backend import Array, to_device
from minicap.data.batches import Batch, ImageBatch
from minicap.model.decoder import Decoder
from minicap.model.masks import draw_feature_mask, draw_masks, masks_of_part
from minicap.nn.adam import Adam, add_gradients
from minicap.nn.parameters import Parameters
from minicap.nn.workspace import Workspace
from minicap.training.config import TrainingConfig
from minicap.training.random_streams import Purpose, stream
from minicap.training.self_critical import Critic

# The trainer checks each loss for NaN and infinity, so NumPy's own warnings are not needed.
ignore_overflow = numpy.errstate(all="ignore")


def batch_on(batch: Batch, xp: ModuleType) -> Batch:
    """Copy a batch's arrays to the device of `xp`."""
    if xp is numpy:
        return batch
    arrays = {name: a for name, a in vars(batch).items() if isinstance(a, numpy.ndarray)}
    return replace(batch, **{name: to_device(array, xp) for name, array in arrays.items()})


@dataclass
class Replica:
    """One worker's view of the training state.

    Attributes:
        worker: the worker's number, from 0.
        config: how to train.
        seed: the seed of the random number streams.
        decoder: the decoder, with parameters that all workers share.
        adam: the optimiser, with a state that all workers share.
        gradients: one gradient buffer per worker; this worker's is ``gradients[worker]``.
        critic: computes the rewards of self-critical epochs; None without such epochs.
        xp: numpy or cupy.
        workspace: this worker's preallocated buffers.
    """

    worker: int
    config: TrainingConfig
    seed: int
    decoder: Decoder
    adam: Adam
    gradients: Sequence[Parameters]
    critic: Critic | None
    xp: ModuleType
    workspace: Workspace = field(default_factory=Workspace)

    @ignore_overflow
    def supervised(
        self, part: Batch, index: Mapping[str, numpy.ndarray], counts: Mapping, place: tuple
    ) -> Array:
        """Compute the loss of this worker's part of a batch, and its gradients.

        Args:
            part: the captions of this worker.
            index: which captions, words and rows of the batch they are, from `Batch.split`.
            counts: the numbers of captions, words and rows in the whole batch.
            place: (epoch, step) of the batch.

        Returns:
            The sum of the part's losses divided by the number of words in the whole batch, a 0-d
            array. The sum of all parts is the mean loss per word, in nats.
        """
        masks: Mapping[str, Array] = {}
        # Masks are drawn for the whole batch, so they do not depend on the number of workers.
        if any(self.config.rates):
            rng, width = stream(self.seed, Purpose.MASKS, *place), part.features.shape[1]
            drawn = draw_masks(self.decoder.config, rng, self.config.rates, width, counts)
            own = masks_of_part(drawn, index)
            masks = {name: to_device(mask, self.xp) for name, mask in own.items()}
        loss, backward = self.loss(part, counts["rows"], masks)
        backward(self.gradients[self.worker])
        return loss

    @ignore_overflow
    def self_critical(
        self, part: ImageBatch, index: Mapping[str, numpy.ndarray], counts: Mapping, place: tuple
    ) -> float:
        """Sample captions for this worker's images and compute the policy gradient.

        The forward pass of the loss uses the same dropout mask on the image features as sampling
        did, and no other dropout. Each word therefore has the probability it was sampled with, but
        for the banned tokens.

        Args:
            part: the images of this worker.
            index: which images of the batch they are, under "captions", from `ImageBatch.split`.
            counts: the number of images in the whole batch, under "captions".
            place: (epoch, step) of the batch.

        Returns:
            Minus the sum of the part's rewards, divided by the number of captions sampled for the
            whole batch. The sum of all parts is minus the mean reward.
        """
        critic, images = self.critic, index["captions"]
        if critic is None:
            raise ValueError("self-critical epochs need a Critic")
        features = part.features
        image_rate, *_ = self.config.rates
        if image_rate:
            shape = counts["captions"], features.shape[1]
            rng = stream(self.seed, Purpose.MASKS, *place)
            mask = draw_feature_mask(self.decoder.config, rng, image_rate, shape)
            features = features * mask[images]
        rng = stream(self.seed, Purpose.SAMPLE, *place)
        # Skip what beam_search draws for the images of the workers before this one.
        rng.random((images[0] * critic.samples, critic.constraints.max_words))
        features = to_device(features, self.xp)
        batch, rewards = critic.batch(self.decoder, features, part.images, rng)
        divisor = counts["captions"] * critic.samples
        loss, backward = self.loss(batch, divisor)
        backward(self.gradients[self.worker])
        if not math.isfinite(loss):  # the trainer stops
            return float(loss)
        return -float(rewards.sum()) / divisor

    def loss(self, batch: Batch, divisor: float, masks: Mapping[str, Array] | None = None):
        """Call Decoder.loss on the device, with large arrays from the workspace."""
        self.workspace.reset()
        allocate = self.workspace.allocate if self.xp is numpy else None
        return self.decoder.loss(batch_on(batch, self.xp), divisor, masks or {}, allocate=allocate)

    @ignore_overflow
    def sum_gradients(self, count: int) -> list[Array]:
        """Add the gradients of the first `count` workers into those of worker 0.

        Each worker adds its own blocks of the flat buffer.

        Returns:
            The sum of squares of each of this worker's blocks of the sum.
        """
        flat = [gradients.flat for gradients in self.gradients[:count]]
        return add_gradients(flat, self.worker, len(self.gradients))

    @ignore_overflow
    def update(self, t: int, learning_rate: float, scale: float) -> None:
        """Apply Adam's update number t to this worker's blocks of the parameters.

        Args:
            t: the number of this update, from 1.
            learning_rate: of this update.
            scale: factor for the gradient, from clipping.
        """
        gradient = self.gradients[0].flat
        self.adam.update(gradient, t, learning_rate, scale, self.worker, len(self.gradients))
