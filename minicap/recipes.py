"""Recipes: every number that a training run depends on, in one place."""

import math
from dataclasses import dataclass
from typing import Literal

from minicap.decoder import Sizes
from minicap.errors import UserError

WIDEST = 100_000  # numbers in a layer: what is far beyond is a slip of the hand


@dataclass(frozen=True)
class Recipe:
    """How to train. Each field is an option of `python -m minicap.train`."""

    epochs: int = 30
    """passes over the data at the most"""
    patience: int = 5
    """stop when there was no better epoch, as `choose` judges them, for so many (0: never)"""
    sampling: Literal["captions", "photos"] = "captions"
    """an epoch is all captions, shuffled; or steps_per_epoch batches, each of different photos
    with one random caption of each"""
    steps_per_epoch: int = 1000
    """batches in an epoch when sampling photos"""
    validation: Literal["words", "batches"] = "words"
    """dev loss is the mean over all dev words; or over 100 random batches, the mean of each"""
    batch_size: int = 64
    """captions in a batch"""
    learning_rate: float = 1e-3
    """Adam's step size, at its greatest"""
    warm_up: float = 0.0
    """epochs at the start in which the step size rises from 0"""
    decay: bool = False
    """let the step size fall to 0 over the run, in a straight line"""
    beta1: float = 0.9
    """Adam's memory of the gradient"""
    beta2: float = 0.999
    """Adam's memory of its square"""
    epsilon: float = 1e-8
    """Adam's guard against division by zero"""
    dropout: float = 0.0
    """share dropped of the photo's features, of the bottlenecks and of the LSTM's outputs"""
    dropout_words: float = 0.0
    """share dropped of each word's embedding"""
    self_critical: int = 0
    """so many of the epochs, the last ones, are self-critical: the model draws captions of its own
    and learns from how much better than each other they are, by CIDEr-D; 0: none"""
    self_critical_rate: float = 2e-4
    """Adam's step size there, at its greatest"""
    samples: int = 5
    """captions that are drawn of each photo there"""
    temperature: float = 0.4
    """all logits are divided by this before the first of these epochs"""
    reward_bleu: float = 0.0
    """the reward is CIDEr-D and so many times BLEU-4"""
    choose: Literal["loss", "cider"] = "loss"
    """keep the model of the epoch with the least dev loss, or with the greatest CIDEr-D of what it
    writes, word by likeliest word, of the dev photos"""
    clip_norm: float = 0.0
    """longest gradient over all parameters (0: no clipping)"""
    max_len: int = 20
    """ids in a caption at the most, #START# and #END# counted; what is longer is cut"""
    min_count: int = 5
    """how often a word must occur in train to be in the vocabulary"""
    standardise: bool = False
    """give every feature mean 0 and deviation 1 over train"""
    components: int = 0
    """replace the features by this many linear combinations of them, those that correlate most with
    the words of the training captions (0: keep the features)"""
    photo: Literal["first", "always"] = "first"
    """the LSTM sees the photo in its first state only, or as an input at every step, too"""
    image_bottleneck: int = 120
    """width of img_embed_to_bottleneck (0: no such layer)"""
    hidden: int = 300
    """width of the LSTM"""
    embedding: int = 100
    """width of word_embed"""
    logit_bottleneck: int = 120
    """width of token_logits_bottleneck (0: no such layer)"""
    word_range: float = 0.05
    """word_embed starts uniform within +- this"""
    photo_gain: float = 1.0
    """kernels that see the photo's features start at so many times Glorot's range"""
    log_frequencies: bool = False
    """the last layer's bias starts at the logarithms of the words' frequencies in train"""

    def check(self) -> None:
        """UserError, naming the option, for a number that makes no sense."""
        for name, good, need in (
            ("epochs", 1 <= self.epochs <= 1_000_000, "from 1 to 1,000,000"),
            ("patience", self.patience >= 0, "0 or more"),
            ("steps-per-epoch", self.steps_per_epoch >= 1, "1 or more"),
            ("batch-size", self.batch_size >= 1, "1 or more"),
            ("learning-rate", 0 < self.learning_rate < math.inf, "greater than 0, and finite"),
            (
                "self-critical",
                0 <= self.self_critical < self.epochs,
                "0 or more, and fewer than the epochs",
            ),
            (
                "choose",
                not self.self_critical or self.choose == "cider",
                "cider where there are self-critical epochs: they write better with a greater loss",
            ),
            (
                "patience",
                not self.self_critical or not self.patience,
                "0 where there are self-critical epochs: it would stop before them",
            ),
            (
                "self-critical-rate",
                0 < self.self_critical_rate < math.inf,
                "greater than 0, and finite",
            ),
            (
                "samples",
                2 <= self.samples <= (self.batch_size if self.self_critical else math.inf),
                "2 or more, and no more than the batch size",
            ),
            ("temperature", 0 < self.temperature < math.inf, "greater than 0, and finite"),
            ("reward-bleu", 0 <= self.reward_bleu < math.inf, "0 or more, and finite"),
            ("warm-up", 0 <= self.warm_up < math.inf, "0 or more, and finite"),
            ("beta1", 0 <= self.beta1 < 1, "0 or more and less than 1"),
            ("beta2", 0 <= self.beta2 < 1, "0 or more and less than 1"),
            ("epsilon", 1e-30 <= self.epsilon < math.inf, "1e-30 or more, and finite"),
            ("dropout", 0 <= self.dropout < 1, "0 or more and less than 1"),
            ("dropout-words", 0 <= self.dropout_words < 1, "0 or more and less than 1"),
            ("clip-norm", 0 <= self.clip_norm < math.inf, "0 or more, and finite"),
            ("max-len", 3 <= self.max_len <= 1000, "from 3 to 1000"),
            ("min-count", self.min_count >= 1, "1 or more"),
            ("components", self.components >= 0, "0 or more"),
            (
                "components",
                not (self.components and self.standardise),
                "0 where features are standardised: it scales them itself",
            ),
            ("image-bottleneck", 0 <= self.image_bottleneck <= WIDEST, f"from 0 to {WIDEST:,}"),
            ("hidden", 1 <= self.hidden <= WIDEST, f"from 1 to {WIDEST:,}"),
            ("embedding", 1 <= self.embedding <= WIDEST, f"from 1 to {WIDEST:,}"),
            ("logit-bottleneck", 0 <= self.logit_bottleneck <= WIDEST, f"from 0 to {WIDEST:,}"),
            ("word-range", 0 < self.word_range < math.inf, "greater than 0, and finite"),
            ("photo-gain", 0 < self.photo_gain < math.inf, "greater than 0, and finite"),
        ):
            if not good:
                raise UserError(f"--{name} must be {need}")

    def sizes(self, vocabulary: int, feature: int) -> Sizes:
        """The decoder's widths, for so many words and features."""
        widths = (self.image_bottleneck, self.hidden, self.embedding, self.logit_bottleneck)
        return Sizes(vocabulary, feature, *widths, self.photo)


RECIPES = {
    # The course's notebook, exactly: https://github.com/hse-aml/intro-to-dl, week 6.
    "course": Recipe(epochs=12, patience=0, sampling="photos", validation="batches"),
    # As the reference run in PyTorch on Flickr8k with MobileNetV2 features, whose embedding starts
    # at deviation 1: words that start within +-0.05 are hardly told apart for some epochs.
    "flickr8k": Recipe(
        epochs=10,
        patience=0,
        dropout=0.3,
        dropout_words=0.3,
        clip_norm=5.0,
        max_len=22,
        word_range=1.0,
    ),
    # The best that was found for Flickr8k (docs/better-captions.md): tuned on dev.
    "best": Recipe(
        epochs=11,
        patience=0,
        choose="cider",
        batch_size=128,
        learning_rate=2e-3,
        warm_up=0.2,
        decay=True,
        self_critical=5,
        reward_bleu=1.0,
        dropout=0.5,
        dropout_words=0.3,
        clip_norm=5.0,
        max_len=22,
        standardise=True,
        photo="always",
        image_bottleneck=0,
        hidden=512,
        embedding=200,
        logit_bottleneck=0,
        word_range=1.0,
        photo_gain=0.1,
        log_frequencies=True,
    ),
    # The shipped scenes, in about a minute. Most of what varies in a random network's features
    # has nothing to do with the caption: `components` keeps the directions that do.
    "scenes": Recipe(
        epochs=3,
        patience=0,
        batch_size=128,
        learning_rate=4e-3,
        warm_up=0.2,
        decay=True,
        dropout=0.1,
        dropout_words=0.5,
        clip_norm=5.0,
        components=48,
        image_bottleneck=300,
        word_range=1.0,
    ),
}
