"""A backward pass runs once."""

import numpy
import pytest

from minicap.model.gradient_cases import decoder_case
from minicap.nn.gradient_cases import layer_cases
from minicap.nn.once import once

RNG = numpy.random.default_rng(0)


@pytest.mark.parametrize("name", layer_cases(RNG))
def test_calling_a_layers_backward_pass_again_raises(name):
    layer, inputs = layer_cases(RNG)[name]
    *outputs, backward = layer(*inputs.values())
    upstream = [numpy.ones_like(y) for y in outputs]
    backward(*upstream)
    with pytest.raises(RuntimeError, match="has already run"):
        backward(*upstream)


def test_calling_the_decoders_backward_pass_again_raises():
    decoder, batch, masks = decoder_case(numpy.random.default_rng(0))
    _, backward = decoder.loss(batch, masks=masks)
    gradients = decoder.parameters.like()
    backward(gradients)
    with pytest.raises(RuntimeError, match="has already run"):
        backward(gradients)


def test_a_backward_pass_that_failed_cannot_run_again():
    """It may have overwritten half of what it needs."""

    @once
    def backward():
        raise MemoryError

    with pytest.raises(MemoryError):
        backward()
    with pytest.raises(RuntimeError, match="has already run"):
        backward()
