"""The vocabulary projection and the loss as one layer: logits, softmax, cross-entropy."""

from collections.abc import Callable

import numpy

from minicap.backend import Allocate, Array, array_module, blocks
from minicap.nn.once import once

BLOCK = 32  # rows of logits that are processed while they are in the cache


def project_cross_entropy(
    x: Array,
    Wb: Array,
    targets: Array,
    weights: Array | None,
    divisor: float,
    *,
    correct: Array | None = None,
    allocate: Allocate | None = None,
) -> tuple[Array, Callable[..., tuple[Array, Array]]]:
    """Project hidden states to the vocabulary and compute the softmax cross-entropy in nats.

    The loss is the sum over r of weights[r] * -log softmax(x[r] W + b)[targets[r]], divided by
    ``divisor``. With e = exp(logits) and s = sum(e), the gradient of row r's logits is
    (e / s - onehot(target)) * weights[r] / divisor.

    The normalised softmax e / s is never formed. It occurs in two matrix products only, and there
    it is cheaper to divide the rows of the small matrix by s than those of e, which is as wide as
    the vocabulary.

    Args:
        x: (R, I) hidden states, one row per real (unpadded) target.
        Wb: (I + 1, V) weights W and, as the last row, biases b.
        targets: (R,) integers in [0, V).
        weights: (R,) weight of each target, or None for weights of 1.
        divisor: what the sum is divided by; R gives the mean.
        correct: (R,) booleans to fill in: whether the target has the largest logit. Or None.
        allocate: allocates the logits (`minicap.nn.workspace.Workspace.allocate`).

    Returns:
        The loss, a 0-d array, and ``backward(dloss=1.0, out=None)``, which returns dx (R, I) and
        dWb (I + 1, V). It works in the memory of the logits.
    """
    xp = array_module(x)
    dtype = xp.result_type(x, Wb)
    x1 = xp.ones((x.shape[0], Wb.shape[0]), dtype=dtype)  # [x, 1]: the ones multiply the bias
    x1[:, :-1] = x
    e = (allocate or xp.empty)((x.shape[0], Wb.shape[1]), dtype)
    ones = xp.ones(Wb.shape[1], dtype=dtype)
    s = xp.empty(x.shape[0], dtype)
    rows = xp.arange(x.shape[0])

    def exponentials(shifted: bool) -> tuple[Array, Array]:
        """Fill in e and s, and return the targets' logits and the shift of each row."""
        xp.matmul(x1, Wb, out=e)  # 1: the logits, one matrix product for all rows
        target_logits = e[rows, targets]
        shift = e.real.max(axis=1) if shifted else xp.zeros_like(target_logits.real)
        if correct is not None:
            correct[...] = target_logits.real == shift
        for block in blocks(e, BLOCK):
            logits = e[block]
            if shifted:
                logits -= shift[block, None]
            xp.exp(logits, out=logits)  # 2: e, in the memory of the logits
            xp.matmul(logits, ones, out=s[block])  # 3: twice as fast as sum(axis=1)
        return target_logits, shift

    # Subtracting each row's largest logit only prevents overflow. It takes two more passes over the
    # logits, so on a CPU we do it only if the sums are out of range. On a GPU we always do it:
    # checking would have to wait for the GPU.
    with numpy.errstate(over="ignore", invalid="ignore"):
        target_logits, shift = exponentials(shifted=xp is not numpy or correct is not None)
    if xp is numpy and not ((s.real > 1e-30) & (s.real < 1e30)).all():
        target_logits, shift = exponentials(shifted=True)
    scale = 1 / divisor if weights is None else weights / divisor
    loss = ((xp.log(s) + shift - target_logits) * scale).sum()  # 4

    @once
    def backward(dloss: float = 1.0, out: Array | None = None) -> tuple[Array, Array]:
        dWb = xp.empty_like(Wb) if out is None else out
        # From 4, 3 and 2: dlogits = (e / s - onehot) * scale = (e - s * onehot) * (scale / s).
        # The first factor takes the place of e; the second is a column, applied to x1 and dx.
        e[rows, targets] -= s
        column = (scale * dloss / s)[:, None]
        xp.matmul((x1 * column).T, e, out=dWb)  # from 1
        dx = (e @ Wb[:-1].T) * column  # from 1
        return dx, dWb

    return loss, backward
