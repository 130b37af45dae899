"""A backward pass runs once."""

import numpy
import pytest

from minicap.model.decoder import caption_loss
from minicap.model.gradient_cases import decoder_case
from minicap.nn.gradient_cases import layer_cases

RNG = numpy.random.default_rng(0)


@pytest.mark.parametrize("name", layer_cases(RNG))
def test_a_second_call_of_a_layers_backward_pass_raises(name):
    layer, inputs = layer_cases(RNG)[name]
    *outputs, backward = layer(*inputs.values())
    upstream = [numpy.ones_like(y) for y in outputs]
    backward(*upstream)
    with pytest.raises(RuntimeError, match="has run already"):
        backward(*upstream)


def test_a_second_call_of_the_decoders_backward_pass_raises():
    p, batch, masks = decoder_case(numpy.random.default_rng(0))
    _, backward = caption_loss(p, batch, masks=masks)
    gradients = p.like()
    backward(gradients)
    with pytest.raises(RuntimeError, match="has run already"):
        backward(gradients)
