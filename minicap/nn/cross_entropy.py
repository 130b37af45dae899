"""The last layer and the loss in one: projection to the vocabulary, softmax, cross-entropy."""

from collections.abc import Callable

import numpy

from minicap.backend import Array, array_module, blocks
from minicap.nn.once import once

BLOCK = 32  # rows whose logits are worked on while they are still in the cache


def project_cross_entropy(
    x: Array,
    Wb: Array,
    targets: Array,
    weights: Array | None,
    divisor: float,
    correct: Array | None = None,
    allocate: Callable | None = None,
) -> tuple[Array, Callable]:
    """sum over r of weights[r] * -log softmax(x[r] W + b)[targets[r]], divided by `divisor`.

    x: (R, I), one row for each real word, so that padding has no row; Wb: (I + 1, V), bias last;
    targets: (R,) integers in [0, V); weights: (R,), or None for 1; correct: None, or (R,) booleans
    that are filled in with whether the target was the likeliest word; allocate: makes the array of
    logits (minicap.nn.workspace).
    Returns the loss (0-d) and backward(dloss=1, out=None) -> dx (R, I), dWb (I + 1, V), which is
    used once: it works in the memory of the logits.

    The softmax e / s is never formed: its rows are needed in two products only, and there it is
    cheaper to divide the rows of the small matrix by s than those of the one that is as wide as
    the vocabulary.
    """
    xp = array_module(x)
    dtype = xp.result_type(x, Wb)
    x1 = xp.ones((x.shape[0], Wb.shape[0]), dtype=dtype)  # the bias rides as a column of ones
    x1[:, :-1] = x
    e = (allocate or xp.empty)((x.shape[0], Wb.shape[1]), dtype)
    ones = xp.ones(Wb.shape[1], dtype=dtype)
    s = xp.empty(x.shape[0], dtype)
    rows = xp.arange(x.shape[0])

    def exponentials(shifted: bool) -> tuple[Array, Array]:
        """Fill in e and s. Returns the targets' logits, and what each row was shifted by."""
        xp.matmul(x1, Wb, out=e)  # 1: the logits, all in one product
        target_logits = e[rows, targets]
        shift = e.real.max(axis=1) if shifted else xp.zeros_like(target_logits.real)
        if correct is not None:
            correct[...] = target_logits.real == shift
        for block in blocks(e, BLOCK):
            logits = e[block]
            if shifted:
                logits -= shift[block, None]
            xp.exp(logits, out=logits)  # 2: e, in the place of the logits
            xp.matmul(logits, ones, out=s[block])  # 3: as a product the sum takes half the time
        return target_logits, shift

    # Shifting by each row's greatest logit changes nothing but what overflows. It takes two more
    # passes over the logits: on a CPU, only if it must be. (A GPU would have to wait to know.)
    with numpy.errstate(over="ignore", invalid="ignore"):
        target_logits, shift = exponentials(shifted=xp is not numpy or correct is not None)
    if xp is numpy and not ((s.real > 1e-30) & (s.real < 1e30)).all():
        target_logits, shift = exponentials(shifted=True)
    scale = 1 / divisor if weights is None else weights / divisor
    loss = ((xp.log(s) + shift - target_logits) * scale).sum()  # 4

    @once
    def backward(dloss: float = 1.0, out: Array | None = None) -> tuple[Array, Array]:
        dWb = xp.empty_like(Wb) if out is None else out
        # dloss / dlogits is (e / s - 1 at the target) * scale: from 4, 3 and 2. Held as
        # (e - s at the target), in the place of e, times the column scale / s.
        e[rows, targets] -= s
        column = (scale * dloss / s)[:, None]
        xp.matmul((x1 * column).T, e, out=dWb)  # from 1
        dx = (e @ Wb[:-1].T) * column  # from 1
        return dx, dWb

    return loss, backward
