"""The dense layer, y = activation(x W + b), and the ELU activation."""

from collections.abc import Callable

from minicap.backend import Array, array_module
from minicap.nn.once import once

Activation = Callable[[Array], tuple[Array, Callable[..., Array]]]


def affine(x: Array, Wb: Array, out: Array | None = None) -> Array:
    """Compute x W + b, without a backward pass.

    Args:
        x: (N, I) inputs.
        Wb: (I + 1, O) weights W and, as the last row, biases b.
        out: (N, O) array for the result.

    Returns:
        y (N, O).
    """
    xp = array_module(x)
    y = xp.matmul(x, Wb[:-1], out=out)
    y += Wb[-1]
    return y


def elu(z: Array) -> tuple[Array, Callable[..., Array]]:
    """Apply the exponential linear unit: z where z > 0, exp(z) - 1 elsewhere.

    Clevert et al. 2015, "Fast and accurate deep network learning by exponential linear units",
    eq. 15, with alpha = 1. It is computed as max(z, exp(min(z, 0)) - 1): this is the same because
    exp(z) - 1 >= z, and exp never overflows.

    Args:
        z: pre-activation, any shape.

    Returns:
        y, same shape as z, and ``backward(dy)``, which returns dz.
    """
    xp = array_module(z)
    y = xp.maximum(z, xp.expm1(xp.minimum(z, 0)))  # 1

    @once
    def backward(dy: Array) -> Array:
        # The slope is 1 where y > 0 and exp(z) = y + 1 elsewhere.
        return dy * (xp.minimum(y, 0) + 1)  # from 1

    return y, backward


def dense(
    x: Array, Wb: Array, activation: Activation | None = None
) -> tuple[Array, Callable[..., tuple[Array | None, Array]]]:
    """Apply a dense layer: y = activation(x W + b).

    Args:
        x: (N, I) inputs.
        Wb: (I + 1, O) weights W and, as the last row, biases b.
        activation: `elu`, or None for a linear layer.

    Returns:
        y (N, O) and ``backward(dy, out=None, need_dx=True)``, which returns dx (N, I) and
        dWb (I + 1, O). With ``need_dx=False``, dx is None: the first layer of a model does not need
        it.

    Example:
        >>> y, backward = dense(x, Wb, elu)
        >>> dx, dWb = backward(dy)
    """
    xp = array_module(x)
    y = affine(x, Wb)  # 1
    if activation:
        y, activation_backward = activation(y)  # 2

    @once
    def backward(
        dy: Array, out: Array | None = None, need_dx: bool = True
    ) -> tuple[Array | None, Array]:
        dWb = xp.empty_like(Wb) if out is None else out
        dz = activation_backward(dy) if activation else dy  # from 2
        xp.matmul(x.T, dz, out=dWb[:-1])  # from 1
        xp.matmul(xp.ones(dz.shape[0], dtype=dz.dtype), dz, out=dWb[-1])  # from 1: sum over rows
        dx = dz @ Wb[:-1].T if need_dx else None  # from 1
        return dx, dWb

    return y, backward
