"""How a decoder is trained: every number that a run depends on, apart from the architecture."""

import math
from dataclasses import dataclass
from typing import Literal

from minicap.utils.errors import UserError


@dataclass(frozen=True)
class TrainingConfig:
    """Data preparation, optimisation and model selection. The defaults are plain supervised
    training; each field is an option of `minicap train`."""

    epochs: int = 30
    """maximum number of passes over the training data"""
    patience: int = 5
    """stop after this many epochs without a better one, as `monitor` measures it (0: never)"""
    sample_by: Literal["captions", "images"] = "captions"
    """what an epoch is: all captions, shuffled; or `steps_per_epoch` batches, each of different
    images with one random caption each"""
    steps_per_epoch: int = 1000
    """batches in an epoch when sampling by images"""
    validation: Literal["words", "batches"] = "words"
    """dev loss: the mean over all dev words; or the mean of 100 random batches' means"""
    batch_size: int = 64
    """captions in a batch"""
    learning_rate: float = 1e-3
    """Adam's peak learning rate"""
    warmup_epochs: float = 0.0
    """epochs in which the learning rate rises linearly from 0"""
    decay: bool = False
    """let the learning rate fall linearly to 0 over the run"""
    beta1: float = 0.9
    """Adam's decay rate of the gradient's mean"""
    beta2: float = 0.999
    """Adam's decay rate of the squared gradient's mean"""
    epsilon: float = 1e-8
    """Adam's constant against division by zero"""
    dropout: float = 0.0
    """dropout rate of the image's features, the bottlenecks and the LSTM's outputs"""
    embedding_dropout: float = 0.0
    """dropout rate of the word embeddings"""
    clip_norm: float = 0.0
    """maximum norm of the gradient of all parameters together (0: no clipping)"""
    max_length: int = 20
    """maximum number of tokens in a caption, #START# and #END# included; longer ones are cut"""
    min_count: int = 5
    """how often a word must occur in the training captions to be in the vocabulary"""
    standardise: bool = False
    """scale every feature to mean 0 and standard deviation 1 over the training images"""
    components: int = 0
    """replace the features by this many linear combinations of them, those that correlate most with
    the words of the training captions (0: keep the features)"""
    embedding_range: float = 0.05
    """the word embedding is initialised uniformly within +- this"""
    image_gain: float = 1.0
    """scales the initial kernels that take the image's features"""
    frequency_bias: bool = False
    """initialise the last layer's bias with the logarithms of the word frequencies"""
    monitor: Literal["loss", "cider"] = "loss"
    """keep the model of the epoch with the lowest dev loss, or with the highest CIDEr-D of greedily
    decoded dev captions"""
    self_critical_epochs: int = 0
    """how many of the epochs, at the end, are self-critical: the model samples captions and learns
    from how much better than each other they are by CIDEr-D (0: none)"""
    self_critical_learning_rate: float = 2e-4
    """Adam's peak learning rate in these epochs"""
    samples_per_image: int = 5
    """captions sampled for each image in these epochs"""
    self_critical_temperature: float = 0.4
    """all logits are divided by this before the first of these epochs"""
    bleu_reward: float = 0.0
    """the reward is CIDEr-D plus this times BLEU-4"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        positive = "greater than 0, and finite"
        not_negative = "0 or more, and finite"
        critical = self.self_critical_epochs > 0
        for name, good, need in (
            ("epochs", 1 <= self.epochs <= 1_000_000, "from 1 to 1,000,000"),
            ("patience", self.patience >= 0, "0 or more"),
            ("steps-per-epoch", self.steps_per_epoch >= 1, "1 or more"),
            ("batch-size", self.batch_size >= 1, "1 or more"),
            ("learning-rate", 0 < self.learning_rate < math.inf, positive),
            ("warmup-epochs", 0 <= self.warmup_epochs < math.inf, not_negative),
            ("beta1", 0 <= self.beta1 < 1, "0 or more and less than 1"),
            ("beta2", 0 <= self.beta2 < 1, "0 or more and less than 1"),
            ("epsilon", 1e-30 <= self.epsilon < math.inf, "1e-30 or more, and finite"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and less than 1"),
            ("embedding-dropout", 0 <= self.embedding_dropout < 1, "0 or more and less than 1"),
            ("clip-norm", 0 <= self.clip_norm < math.inf, not_negative),
            ("max-length", 3 <= self.max_length <= 1000, "from 3 to 1000"),
            ("min-count", self.min_count >= 1, "1 or more"),
            ("components", self.components >= 0, "0 or more"),
            (
                "components",
                not (self.components and self.standardise),
                "0 with --standardise: it scales the features itself",
            ),
            ("embedding-range", 0 < self.embedding_range < math.inf, positive),
            ("image-gain", 0 < self.image_gain < math.inf, positive),
            (
                "self-critical-epochs",
                0 <= self.self_critical_epochs < self.epochs,
                "0 or more, and fewer than --epochs",
            ),
            (
                "self-critical-learning-rate",
                0 < self.self_critical_learning_rate < math.inf,
                positive,
            ),
            (
                "samples-per-image",
                2 <= self.samples_per_image <= (self.batch_size if critical else math.inf),
                "2 or more, and at most --batch-size",
            ),
            (
                "self-critical-temperature",
                0 < self.self_critical_temperature < math.inf,
                positive,
            ),
            ("bleu-reward", 0 <= self.bleu_reward < math.inf, not_negative),
            (
                "monitor",
                not critical or self.monitor == "cider",
                "cider with self-critical epochs: they generate better with a higher loss",
            ),
            (
                "patience",
                not critical or not self.patience,
                "0 with self-critical epochs: training would stop before them",
            ),
        ):
            if not good:
                raise UserError(f"--{name} must be {need}")
