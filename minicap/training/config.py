"""The training configuration: every setting of a run except the architecture."""

import math
from dataclasses import dataclass
from typing import Literal

from minicap.data.tokenisers import TokenizerName
from minicap.utils.errors import UserError


@dataclass(frozen=True)
class TrainingConfig:
    """Settings for data preparation, optimisation and model selection."""

    # Each field is an option of `minicap train`, and the text below it is the option's help. The
    # defaults are plain supervised training.

    epochs: int = 30
    """maximum number of passes over the training data"""
    patience: int = 5
    """stop after this many epochs in which the monitored metric did not improve (0: never)"""
    sample_by: Literal["captions", "images"] = "captions"
    """captions: an epoch is every caption once, shuffled; images: it is --steps-per-epoch batches
    of different random images, with one random caption of each"""
    steps_per_epoch: int = 1000
    """batches in an epoch when sampling by images"""
    validation: Literal["words", "batches"] = "words"
    """words: the dev loss is the mean over all dev words; batches: it is the mean over 100 random
    batches of their mean losses"""
    batch_size: int = 64
    """captions in a batch"""
    learning_rate: float = 1e-3
    """Adam's peak learning rate"""
    warmup_epochs: float = 0.0
    """epochs of linear learning-rate warm-up from 0, once more at the start of the self-critical
    epochs"""
    decay: bool = False
    """decay the learning rate linearly to 0 over the supervised epochs, and again over the
    self-critical ones"""
    beta1: float = 0.9
    """Adam's decay rate for the mean of the gradient"""
    beta2: float = 0.999
    """Adam's decay rate for the mean of the squared gradient"""
    epsilon: float = 1e-8
    """Adam's constant that prevents division by zero"""
    dropout: float = 0.0
    """dropout rate of the image features, the bottlenecks and the LSTM's outputs"""
    embedding_dropout: float = 0.0
    """dropout rate of the word embeddings"""
    image_dropout: float | None = None
    """dropout rate of the image features, if it is not that of --dropout"""
    clip_norm: float = 0.0
    """maximum L2 norm of the gradient of all parameters together (0: no clipping)"""
    max_length: int = 20
    """maximum number of tokens in a caption, including #START# and #END#; longer captions are
    truncated"""
    tokenizer: TokenizerName = "course"
    """course: split at everything that is not a letter, digit or underscore; unicode: letters keep
    their marks, and apostrophes and hyphens inside words stay; characters: each letter is a token,
    for text without spaces between words"""
    min_count: int = 5
    """minimum number of times a word must occur in the training captions to enter the vocabulary"""
    standardise: bool = False
    """standardise every feature to mean 0 and standard deviation 1 over the training images"""
    components: int = 0
    """replace the features with this many linear combinations of them, those that correlate most
    with the words of the training captions (0: keep the features)"""
    embedding_range: float = 0.05
    """initialise the word embedding uniformly in [-this, this]"""
    image_gain: float = 1.0
    """factor for the initial weights of the layers that take the image features"""
    frequency_bias: bool = False
    """initialise the last layer's bias with the log frequencies of the words"""
    monitor: Literal["loss", "cider"] = "loss"
    """loss: keep the model with the lowest dev loss; cider: the one with the highest CIDEr-D on dev
    (greedy decoding)"""
    self_critical_epochs: int = 0
    """number of final epochs of self-critical training, which samples captions and raises the
    probability of those with a higher CIDEr-D (0: none)"""
    self_critical_learning_rate: float = 2e-4
    """Adam's peak learning rate in the self-critical epochs"""
    samples_per_image: int = 5
    """captions sampled for each image in the self-critical epochs"""
    self_critical_temperature: float = 0.4
    """divide all logits by this once, before the first self-critical epoch"""
    bleu_reward: float = 0.0
    """weight of BLEU-4 in the reward: CIDEr-D plus this times BLEU-4"""

    @property
    def rates(self) -> tuple[float, float, float]:
        """The dropout rates of the image features, the other layers, and the word embeddings."""
        image = self.dropout if self.image_dropout is None else self.image_dropout
        return image, self.dropout, self.embedding_dropout

    def check(self) -> None:
        """Check that every value is in range.

        Raises:
            UserError: a value is out of range. The message names the option.
        """
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
            ("image-dropout", 0 <= self.rates[0] < 1, "0 or more and less than 1"),
            ("clip-norm", 0 <= self.clip_norm < math.inf, not_negative),
            ("max-length", 3 <= self.max_length <= 1000, "from 3 to 1000"),
            ("min-count", self.min_count >= 1, "1 or more"),
            ("components", self.components >= 0, "0 or more"),
            (
                "components",
                not (self.components and self.standardise),
                "0 with --standardise: both scale the features",
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
                "cider with self-critical epochs: they raise CIDEr-D and the loss",
            ),
            (
                "patience",
                not critical or not self.patience,
                "0 with self-critical epochs: training would stop before them",
            ),
        ):
            if not good:
                raise UserError(f"--{name} must be {need}")
