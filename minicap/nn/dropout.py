"""Dropout. The mask is an argument, so the layer itself is deterministic."""

from collections.abc import Callable

import numpy
from numpy.typing import DTypeLike

from minicap.backend import Array
from minicap.nn.once import once


def dropout(x: Array, mask: Array | None) -> tuple[Array, Callable[..., Array]]:
    """Multiply by a dropout mask: y = x * mask.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", in
    the inverted form: the mask is scaled, so nothing needs to be rescaled at inference.

    Args:
        x: input, any shape.
        mask: from `draw_mask`, same shape as x; or None for no dropout.

    Returns:
        y, same shape as x, and ``backward(dy)``, which returns dx.
    """
    if mask is None:
        return x, once(lambda dy: dy)

    @once
    def backward(dy: Array) -> Array:
        return dy * mask  # from 1

    return x * mask, backward  # 1


def draw_mask(
    rng: numpy.random.Generator, shape: tuple[int, ...], rate: float, dtype: DTypeLike = "float32"
) -> numpy.ndarray:
    """Draw a mask for `dropout`: 0 with probability ``rate``, 1 / (1 - rate) otherwise.

    Args:
        rng: random number generator.
        shape: shape of the mask.
        rate: dropout rate, 0 <= rate < 1.
        dtype: data type of the mask.

    Returns:
        The mask, a NumPy array: it is drawn on the host whatever the device, so that the random
        numbers do not depend on the device.
    """
    keep = 1 - rate
    return (rng.random(shape, dtype="float32") < keep).astype(dtype) * (1 / keep)
