"""Recipes: named pairs of an architecture and a training configuration."""

from dataclasses import dataclass
from typing import Literal

from minicap.model.config import DecoderConfig
from minicap.training.config import TrainingConfig

RecipeName = Literal["scenes", "flickr8k", "course", "best"]


@dataclass(frozen=True)
class Recipe:
    """What to train, and how."""

    decoder: DecoderConfig = DecoderConfig()
    training: TrainingConfig = TrainingConfig()

    def check(self) -> None:
        """Raise UserError, naming the option, for a value out of range."""
        self.decoder.check()
        self.training.check()


RECIPES: dict[RecipeName, Recipe] = {
    # The original course notebook, exactly: https://github.com/hse-aml/intro-to-dl, week 6.
    "course": Recipe(
        DecoderConfig(),
        TrainingConfig(epochs=12, patience=0, sample_by="images", validation="batches"),
    ),
    # Equal to the reference run in PyTorch on Flickr8k with MobileNetV2 features, whose embedding
    # has an initial standard deviation of 1: words that start within +-0.05 are hard to tell apart
    # for some epochs.
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
    # The best found for Flickr8k (docs/better-captions.md), tuned on dev.
    "best": Recipe(
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
            standardise=True,
            embedding_range=1.0,
            image_gain=0.1,
            frequency_bias=True,
            monitor="cider",
            self_critical_epochs=5,
            bleu_reward=1.0,
        ),
    ),
    # The shipped scenes, in about a minute. Most of the variance of a random network's features has
    # nothing to do with the caption: `components` keeps the directions that do.
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
