"""The dense layer, y = activation(x W + b), and the ELU."""

from collections.abc import Callable

from minicap.backend import Array, array_module
from minicap.nn.once import once


def affine(x: Array, Wb: Array, out: Array | None = None) -> Array:
    """x W + b. x: (N, I); Wb: (I + 1, O), the bias is its last row -> (N, O)."""
    xp = array_module(x)
    y = xp.matmul(x, Wb[:-1], out=out)
    y += Wb[-1]
    return y


def elu(z: Array) -> tuple[Array, Callable]:
    """z where z > 0, else exp(z) - 1 (alpha = 1; Clevert et al. 2015, eq. 15). Any shape.

    That is the greater of z and exp(min(z, 0)) - 1, as exp(z) - 1 >= z everywhere.
    """
    xp = array_module(z)
    y = xp.maximum(z, xp.expm1(xp.minimum(z, 0)))  # 1

    @once
    def backward(dy: Array) -> Array:
        # The slope is 1 where y > 0, and elsewhere exp(z), which is y + 1.
        return dy * (xp.minimum(y, 0) + 1)  # from 1

    return y, backward


def dense(x: Array, Wb: Array, activation: Callable | None = None) -> tuple[Array, Callable]:
    """y = activation(x W + b).

    x: (N, I); Wb: (I + 1, O), weights W above one row of biases b; activation: `elu` or None.
    Returns y (N, O) and backward(dy, out=None, need_dx=True) -> dx (N, I) or None, dWb (I + 1, O).
    """
    xp = array_module(x)
    y = affine(x, Wb)  # 1
    if activation:
        y, activation_backward = activation(y)  # 2

    @once
    def backward(dy: Array, out: Array | None = None, need_dx: bool = True):
        dWb = xp.empty_like(Wb) if out is None else out
        dz = activation_backward(dy) if activation else dy  # from 2
        xp.matmul(x.T, dz, out=dWb[:-1])  # from 1
        xp.matmul(xp.ones(dz.shape[0], dtype=dz.dtype), dz, out=dWb[-1])  # from 1: the sum of rows
        dx = dz @ Wb[:-1].T if need_dx else None  # from 1
        return dx, dWb

    return y, backward
