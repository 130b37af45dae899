"""Dropout with a mask that is passed in, so that the layer itself has no randomness."""

from collections.abc import Callable

from minicap.backend import Array
from minicap.nn.once import once


def dropout(x: Array, mask: Array | None) -> tuple[Array, Callable]:
    """y = x * mask (Srivastava et al. 2014, in the "inverted" form that needs no rescaling later).

    x: any shape; mask: the same shape, 0 or 1 / keep probability, or None for no dropout.
    Returns y and backward(dy) -> dx.
    """
    if mask is None:
        return x, once(lambda dy: dy)

    @once
    def backward(dy: Array) -> Array:
        return dy * mask  # from 1

    return x * mask, backward  # 1


def draw_mask(rng, shape: tuple[int, ...], rate: float, dtype="float32") -> Array:
    """A mask for `dropout`: 0 with probability `rate`, else 1 / (1 - rate).

    rng: numpy.random.Generator; rate in [0, 1). Drawn on the host, whatever the device is.
    """
    keep = 1 - rate
    return (rng.random(shape, dtype="float32") < keep).astype(dtype) * (1 / keep)
