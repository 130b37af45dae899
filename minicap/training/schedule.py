"""The schedule of a run: steps per epoch, kind of epoch, and learning rate."""

import math
from dataclasses import dataclass

from minicap.training.config import TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """How many steps each epoch of a run has, and the learning rate of each step.

    Epochs and steps count from 0. The last `config.self_critical_epochs` epochs are self-critical;
    the ones before are supervised.

    Attributes:
        config: how to train.
        captions: number of training captions.
        images: number of training images.
    """

    config: TrainingConfig
    captions: int
    images: int

    @property
    def supervised_epochs(self) -> int:
        """The number of epochs before the self-critical ones."""
        return self.config.epochs - self.config.self_critical_epochs

    def is_self_critical(self, epoch: int) -> bool:
        """Return whether the model learns from its own captions in this epoch."""
        return self.config.self_critical_epochs > 0 and epoch >= self.supervised_epochs

    def steps(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""
        config = self.config
        if self.is_self_critical(epoch):
            return math.ceil(self.images / (config.batch_size // config.samples_per_image))
        if config.sample_by == "images":
            return config.steps_per_epoch
        return math.ceil(self.captions / config.batch_size)

    def learning_rate(self, epoch: int, step: int) -> float:
        """Return Adam's learning rate for one step.

        It is the product of a linear warm-up over `warmup_epochs` and, with `decay`, a linear decay
        to 0. The supervised and the self-critical epochs have a schedule each, with their own peak.
        """
        config, first, epochs = self.config, 0, self.supervised_epochs
        peak = config.learning_rate
        if self.is_self_critical(epoch):
            first, epochs = epochs, config.self_critical_epochs
            peak = config.self_critical_learning_rate
        steps = self.steps(epoch)
        before, after = (epoch - first + (step + done) / steps for done in (0, 1))
        warmup = min(1.0, after / config.warmup_epochs) if config.warmup_epochs else 1.0
        decay = max(0.0, 1 - before / epochs) if config.decay else 1.0
        return peak * warmup * decay
