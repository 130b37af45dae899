"""What one worker computes: its part of the gradients, and its part of Adam's update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy

from minicap.backend import Array, to_device
from minicap.data.batches import Batch, ImageBatch
from minicap.model.decoder import Decoder
from minicap.model.masks import draw_masks, masks_of_part
from minicap.nn.adam import Adam, add_gradients
from minicap.nn.dropout import draw_mask
from minicap.nn.parameters import Parameters
from minicap.nn.workspace import Workspace
from minicap.training.config import TrainingConfig
from minicap.training.random_streams import Purpose, stream
from minicap.training.self_critical import Critic

# A loss that is not finite is looked for, and reported once.
ignore_overflow = numpy.errstate(all="ignore")


def batch_on(batch: Batch, xp: ModuleType) -> Batch:
    """The batch with its arrays on the device of `xp`."""
    if xp is numpy:
        return batch
    arrays = {name: a for name, a in vars(batch).items() if isinstance(a, numpy.ndarray)}
    return replace(batch, **{name: to_device(array, xp) for name, array in arrays.items()})


@dataclass
class Replica:
    """A worker's view of the training state.

    Attributes:
        worker: its number, from 0.
        config: how to train.
        seed: names the random streams.
        decoder: with the parameters, which all workers share.
        adam: the optimiser, whose state all share.
        gradients: each worker's, this one's under its number.
        critic: for self-critical epochs, or None.
        xp: numpy or cupy.
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
        """Compute this worker's part of the loss and of the gradients of one batch.

        Args:
            part: the worker's captions.
            index: which captions, words and rows of the batch these are.
            counts: the whole batch's numbers of captions, words and rows.
            place: the batch's epoch and step.

        Returns:
            The part of the mean loss, a 0-d array.
        """
        masks: Mapping[str, Array] = {}
        rates = self.config.dropout, self.config.embedding_dropout
        if any(rates):  # drawn for the whole batch, so that workers do not change them
            rng, width = stream(self.seed, Purpose.MASKS, *place), part.features.shape[1]
            drawn = draw_masks(self.decoder.config, rng, *rates, width, counts)
            own = masks_of_part(drawn, index)
            masks = {name: to_device(mask, self.xp) for name, mask in own.items()}
        loss, backward = self.loss(part, counts["rows"], masks)
        backward(self.gradients[self.worker])
        return loss

    @ignore_overflow
    def self_critical(
        self, part: ImageBatch, index: Mapping[str, numpy.ndarray], counts: Mapping, place: tuple
    ) -> float:
        """Compute this worker's part of the policy gradient of one batch. (See `supervised`.)

        An image's captions are sampled and learned from with the same features dropped, and no
        other dropout: the words' probabilities are those they were sampled with.

        Returns:
            The part of the mean reward, negated.
        """
        critic, images = self.critic, index["captions"]
        if critic is None:
            raise ValueError("self-critical epochs need a Critic")
        features = part.features
        if self.config.dropout:
            shape = counts["captions"], features.shape[1]
            rng = stream(self.seed, Purpose.MASKS, *place)
            features = features * draw_mask(rng, shape, self.config.dropout)[images]
        rng = stream(self.seed, Purpose.SAMPLE, *place)
        rng.random((images[0] * critic.samples, critic.constraints.max_words))  # other workers'
        features = to_device(features, self.xp)
        batch, rewards = critic.batch(self.decoder, features, part.images, rng)
        divisor = counts["captions"] * critic.samples
        loss, backward = self.loss(batch, divisor)
        backward(self.gradients[self.worker])
        return -float(rewards.sum()) / divisor if math.isfinite(loss) else float(loss)

    def loss(self, batch: Batch, divisor: float, masks: Mapping[str, Array] | None = None):
        """Decoder.loss on the device, with large arrays from the workspace."""
        self.workspace.reset()
        allocate = self.workspace.allocate if self.xp is numpy else None
        return self.decoder.loss(batch_on(batch, self.xp), divisor, masks or {}, allocate=allocate)

    @ignore_overflow
    def sum_gradients(self, count: int) -> list[Array]:
        """Add the gradients of `count` workers into the first's: this worker's blocks of them.

        Returns:
            The sum of squares of each block.
        """
        flat = [gradients.flat for gradients in self.gradients[:count]]
        return add_gradients(flat, self.worker, len(self.gradients))

    @ignore_overflow
    def update(self, t: int, learning_rate: float, scale: float) -> None:
        """Apply Adam's update number t to this worker's blocks of the parameters."""
        gradient = self.gradients[0].flat
        self.adam.update(gradient, t, learning_rate, scale, self.worker, len(self.gradients))
