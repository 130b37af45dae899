"""A tiny decoder with a batch of captions, for gradient checks."""

from collections.abc import Iterator, Mapping

import numpy

from minicap.data.batches import Batch, pack
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
    rng: numpy.random.Generator, rate: float = 0.3, steps: int = 0, **sizes
) -> tuple[Decoder, Batch, dict[str, numpy.ndarray]]:
    """Make a decoder in float64, a batch of five captions, and dropout masks.

    The captions have several lengths; one has a single word to predict, and the longest has no
    #END#, as if cut by the length limit. Among the 18 inputs of six kinds, #START# and other words
    occur more than once.

    Args:
        rng: random number generator.
        rate: dropout rate of the masks.
        steps: training steps that the decoder has done.
        **sizes: fields of DecoderConfig to change.
    """
    usual = {"image_bottleneck": 4, "hidden_size": 3, "embedding_size": 4, "logit_bottleneck": 6}
    config = DecoderConfig(**(usual | sizes))
    lengths = numpy.array([4, 7, 2, 5, 5])
    ids = rng.integers(3, VOCABULARY, (5, 7))
    ids[:, 0] = START
    for caption in (0, 2, 3, 4):
        ids[caption, lengths[caption] - 1] = END
    batch = pack(rng.standard_normal((5, FEATURES)), ids, lengths)
    masks = draw_masks(config, rng, rate, rate, FEATURES, batch.counts)
    shapes = config.shapes(FEATURES, VOCABULARY)
    parameters = as_float64(initial_parameters(config, shapes, rng))
    decoder = Decoder(config, parameters)
    gradients, adam = parameters.like(), Adam(parameters.flat, learning_rate=0.02)
    for _ in range(steps):
        decoder.loss(batch)[1](gradients)
        adam.step(gradients.flat)
    return decoder, batch, masks


def loss_of(config: DecoderConfig, batch: Batch, masks: Mapping = NO_MASKS) -> Loss:
    """The loss of a decoder as a function of its parameters, for the two checks."""
    return lambda parameters: Decoder(config, parameters).loss(batch, masks=masks)


def as_float64(parameters: Parameters) -> Parameters:
    """A copy in float64, on the host."""
    copy = Parameters(parameters.shapes, "float64")
    copy.flat[:] = parameters.flat
    return copy


def all_cases(
    rng: numpy.random.Generator,
) -> Iterator[tuple[str, Loss, Mapping[str, numpy.ndarray]]]:
    """Everything minicap differentiates: name, loss and parameters."""
    for name, (layer, inputs) in layer_cases(rng).items():
        yield name, as_loss(layer, inputs, rng), inputs
    # No dropout before training: where it drops a whole row while biases are still zero, the ELU
    # is evaluated exactly at 0. There its second derivative jumps, and central differences are off
    # by h / 4. (The complex step is not: tests/model/test_decoder.py has that case.)
    usual: dict = {}
    every_step = {"image_input": "every_step", "image_bottleneck": 0, "logit_bottleneck": 0}
    for name, steps, sizes in (
        ("decoder, untrained", 0, usual),
        ("decoder, trained", 20, usual),
        ("decoder, every_step", 20, every_step),
    ):
        decoder, batch, masks = decoder_case(rng, steps=steps, **sizes)
        loss = loss_of(decoder.config, batch, masks if steps else NO_MASKS)
        yield name, loss, decoder.parameters
