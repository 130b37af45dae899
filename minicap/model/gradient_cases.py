"""A tiny decoder with a batch of captions, for gradient checks."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy

from minicap.backend import Array
from minicap.data.batches import Batch, pack
from minicap.model.attending_decoder import make_decoder
from minicap.model.config import DecoderConfig
from minicap.model.decoder import NO_MASKS, Decoder
from minicap.model.initial import initial_parameters
from minicap.model.masks import draw_masks
from minicap.nn.adam import Adam
from minicap.nn.gradient_cases import layer_cases
from minicap.nn.gradient_check import Loss, as_loss
from minicap.nn.parameters import Parameters

START, END = 1, 2
VOCABULARY, FEATURES = 9, 5  # sizes


def decoder_case(
    rng: numpy.random.Generator, rate: float = 0.3, steps: int = 0, **sizes: Any
) -> tuple[Decoder, Batch, dict[str, numpy.ndarray]]:
    """Make a small decoder in float64, a batch of five captions, and dropout masks.

    The lengths differ. One caption has a single word to predict, and the longest has no #END#, as
    if it were truncated. #START# and other words occur more than once among the 18 inputs.

    Args:
        rng: random number generator.
        rate: dropout rate of the masks.
        steps: number of training steps of the decoder.
        **sizes: fields of DecoderConfig to change.

    Returns:
        The decoder, the batch (N = 5 captions, R = 18 words to predict, F = 5 features, V = 9
        words) and the masks by layer.
    """
    usual = {"image_bottleneck": 4, "hidden_size": 3, "embedding_size": 4, "logit_bottleneck": 6}
    config = DecoderConfig(**(usual | sizes))
    lengths = numpy.array([4, 7, 2, 5, 5])
    ids = rng.integers(3, VOCABULARY, (5, 7))
    ids[:, 0] = START
    for caption in (0, 2, 3, 4):
        ids[caption, lengths[caption] - 1] = END
    batch = pack(rng.standard_normal((5, FEATURES)), ids, lengths)
    masks = draw_masks(config, rng, (rate,) * 3, FEATURES, batch.counts)
    shapes = config.shapes(FEATURES, VOCABULARY)
    parameters = as_float64(initial_parameters(config, shapes, rng))
    decoder = make_decoder(config, parameters)
    gradients, adam = parameters.like(), Adam(parameters.flat, learning_rate=0.02)
    for _ in range(steps):
        decoder.loss(batch)[1](gradients)
        adam.step(gradients.flat)
    return decoder, batch, masks


def loss_of(config: DecoderConfig, batch: Batch, masks: Mapping[str, Array] = NO_MASKS) -> Loss:
    """Return the loss of a decoder as a function of its parameters, for gradient checks.

    Args:
        config: the decoder's architecture.
        batch: captions.
        masks: dropout masks, or none.

    Returns:
        ``loss(parameters)``.
    """
    return lambda parameters: make_decoder(config, parameters).loss(batch, masks=masks)


def as_float64(parameters: Parameters) -> Parameters:
    """Copy parameters on the host to float64."""
    copy = Parameters(parameters.shapes, "float64")
    copy.flat[:] = parameters.flat
    return copy


def all_cases(
    rng: numpy.random.Generator,
) -> Iterator[tuple[str, Loss, Mapping[str, numpy.ndarray]]]:
    """Iterate over every layer and the whole decoder, for gradient checks.

    Args:
        rng: random number generator; it determines the inputs.

    Yields:
        The name of the case, its loss and its float64 parameters by name.
    """
    for name, (layer, inputs) in layer_cases(rng).items():
        yield name, as_loss(layer, inputs, rng), inputs
    # The untrained decoder has no dropout. If a mask dropped a whole row while biases are zero, the
    # ELU would be evaluated at exactly 0, where its second derivative jumps and central differences
    # are off by h / 4. (The complex step is exact there: tests/model/test_decoder.py.)
    usual: dict[str, Any] = {}
    every_step = {"image_input": "every_step", "image_bottleneck": 0, "logit_bottleneck": 0}
    attention = {"image_input": "attention", "positions": 5, "attention_size": 4}
    for name, steps, sizes in (
        ("decoder, untrained", 0, usual),
        ("decoder, trained", 20, usual),
        ("decoder, every_step", 20, every_step),
        ("decoder, attention", 20, attention),
    ):
        decoder, batch, masks = decoder_case(rng, steps=steps, **sizes)
        loss = loss_of(decoder.config, batch, masks if steps else NO_MASKS)
        yield name, loss, decoder.parameters
