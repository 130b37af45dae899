"""Recipes: named pairs of an architecture and a training configuration."""

from dataclasses import dataclass, replace
from typing import Literal

from minicap.model.config import DecoderConfig
from minicap.training.config import TrainingConfig

RecipeName = Literal["scenes", "flickr8k", "course", "best", "attend"]


@dataclass(frozen=True)
class Recipe:
    """An architecture and how to train it.

    Attributes:
        decoder: the architecture.
        training: everything else.
    """

    decoder: DecoderConfig = DecoderConfig()
    training: TrainingConfig = TrainingConfig()

    def check(self) -> None:
        """Check that every value is in range.

        Raises:
            UserError: a value is out of range. The message names the option.
        """
        self.decoder.check()
        self.training.check()


# The best settings found for Flickr8k, tuned on dev (docs/better-captions.md).
BEST = Recipe(
    DecoderConfig(
        image_bottleneck=0,
        hidden_size=512,
        embedding_size=200,
        logit_bottleneck=0,
        image_input="every_step",
    ),
    TrainingConfig(
        epochs=11,
        patience=0,
        batch_size=128,
        learning_rate=2e-3,
        warmup_epochs=0.2,
        decay=True,
        dropout=0.5,
        embedding_dropout=0.3,
        clip_norm=5.0,
        max_length=22,
        tokenizer="unicode",
        standardise=True,
        embedding_range=1.0,
        image_gain=0.1,
        frequency_bias=True,
        monitor="cider",
        self_critical_epochs=5,
        bleu_reward=1.0,
    ),
)

RECIPES: dict[RecipeName, Recipe] = {
    # Exactly the original course notebook: https://github.com/hse-aml/intro-to-dl, week 6.
    "course": Recipe(
        DecoderConfig(),
        TrainingConfig(epochs=12, patience=0, sample_by="images", validation="batches"),
    ),
    # The settings of the PyTorch reference run on Flickr8k with MobileNetV2 features. PyTorch
    # initialises embeddings with a standard deviation of 1, so the range is 1 here: within +-0.05,
    # words stay hard to tell apart for the first epochs.
    "flickr8k": Recipe(
        DecoderConfig(),
        TrainingConfig(
            epochs=10,
            patience=0,
            dropout=0.3,
            embedding_dropout=0.3,
            clip_norm=5.0,
            max_length=22,
            embedding_range=1.0,
        ),
    ),
    "best": BEST,
    # The same with attention, for features of `minicap encode --map`.
    "attend": Recipe(
        replace(BEST.decoder, image_input="attention"), replace(BEST.training, image_dropout=0.2)
    ),
    # The shipped scenes, in about a minute. Most of the variance in a random network's features is
    # unrelated to the caption; `components` keeps the directions that are related.
    "scenes": Recipe(
        DecoderConfig(image_bottleneck=300),
        TrainingConfig(
            epochs=3,
            patience=0,
            batch_size=128,
            learning_rate=4e-3,
            warmup_epochs=0.2,
            decay=True,
            dropout=0.1,
            embedding_dropout=0.5,
            clip_norm=5.0,
            components=48,
            embedding_range=1.0,
        ),
    ),
}
