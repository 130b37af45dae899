"""The architecture of a decoder. It is saved with the model."""

from dataclasses import dataclass
from typing import Literal

from minicap.utils.errors import UserError

MAX_SIZE = 100_000  # units in a layer; more is a typing error

IMAGE_LAYERS = ("img_embed_to_bottleneck", "img_embed_bottleneck_to_h0")
OUTPUT_LAYERS = ("token_logits_bottleneck",)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and inputs of a decoder's layers. Each field is an option of `minicap train`.

    The defaults are those of the original course notebook.
    """

    image_bottleneck: int = 120
    """units of the dense layer between the image's features and the initial state (0: no layer)"""
    hidden_size: int = 300
    """units of the LSTM"""
    embedding_size: int = 100
    """numbers in a word's embedding"""
    logit_bottleneck: int = 120
    """units of the dense layer between the LSTM and the logits (0: no layer)"""
    image_input: Literal["initial_state", "every_step", "attention"] = "initial_state"
    """where the LSTM gets the image: in its initial state only, or also as an input at every step:
    the whole image, or by attention over its positions"""
    attention_size: int = 256
    """units of the layer that scores positions, for attention (0: all weights are equal)"""
    positions: int = 1
    """positions per image, for attention; `minicap train` takes their number from the features"""

    def check(self) -> None:
        """Raise UserError, naming the option, for a size out of range."""
        for name, least in (
            ("image_bottleneck", 0),
            ("hidden_size", 1),
            ("embedding_size", 1),
            ("logit_bottleneck", 0),
            ("attention_size", 0),
            ("positions", 1),
        ):
            if not least <= getattr(self, name) <= MAX_SIZE:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be from {least} to {MAX_SIZE:,}")

    @property
    def image_layers(self) -> tuple[str, ...]:
        """The dense layers from the image's features to the initial state, in order."""
        return IMAGE_LAYERS if self.image_bottleneck else IMAGE_LAYERS[1:]

    @property
    def output_layers(self) -> tuple[str, ...]:
        """The dense layers between the LSTM and the logits."""
        return OUTPUT_LAYERS if self.logit_bottleneck else ()

    def shapes(self, feature_size: int, vocabulary_size: int) -> dict[str, tuple[int, int]]:
        """Compute the shape of each parameter, by name.

        Names are those of the original course notebook. Each weight matrix has its bias as its last
        row. `lstm` is [V; U; W; b]: the weights of the image (if it is an input at every step) or
        of the context (with attention), of h and of the word, and the bias.

        Args:
            feature_size: number of features per image.
            vocabulary_size: number of words.
        """
        attends = self.image_input == "attention"
        width = feature_size // self.positions if attends else feature_size
        image = 0 if self.image_input == "initial_state" else width
        shapes = {
            "img_embed_to_bottleneck": (width + 1, self.image_bottleneck),
            "img_embed_bottleneck_to_h0": (
                (self.image_bottleneck or width) + 1,
                self.hidden_size,
            ),
            "word_embed": (vocabulary_size, self.embedding_size),
            "lstm": (
                image + self.hidden_size + self.embedding_size + 1,
                4 * self.hidden_size,
            ),
            "token_logits_bottleneck": (self.hidden_size + 1, self.logit_bottleneck),
            "token_logits": ((self.logit_bottleneck or self.hidden_size) + 1, vocabulary_size),
        }
        shapes = {name: shape for name, shape in shapes.items() if shape[1]}
        if attends:
            shapes |= {
                "attention_keys": (width + 1, self.attention_size),
                "attention_query": (
                    self.hidden_size + self.embedding_size + 1,
                    self.attention_size,
                ),
                "attention_scores": (self.attention_size, 1),
            }
        return shapes
