"""Adam (Kingma and Ba 2015) as tf.train.AdamOptimizer has it, and clipping by the global norm."""

import math
from collections.abc import Callable, Sequence

import numpy

from minicap.backend import Array, array_module

BLOCK = 1 << 15  # numbers: all that a block's update touches stays in the cache


def blocks(array: Array, share: int = 0, shares: int = 1) -> list[slice]:
    """Blocks of `array`; of them, every one that falls to `share` among `shares`. On a GPU there
    is one: it has no use for less."""
    size = array.size
    block = BLOCK if array_module(array) is numpy else size
    return [slice(i, i + block) for i in range(share * block, size, shares * block)]


def add_gradients(gradients: Sequence[Array], share: int = 0, shares: int = 1) -> list[float]:
    """Add all gradients into the first, in place, block by block.

    gradients: (P,) each, one or more. Returns each block's sum of squares, for `global_norm`.
    """
    first, *others = gradients
    squares = []
    for block in blocks(first, share, shares):
        g = first[block]
        for other in others:
            g += other[block]
        squares.append(float(g @ g))
    return squares


def clip_scale(squares: Sequence[float], limit: float) -> float:
    """What to multiply a gradient by so that its norm is `limit` at the most (Pascanu et al. 2013).

    squares: sums of squares of its parts, in any order; limit > 0.
    """
    norm = math.sqrt(math.fsum(squares))
    return limit / norm if norm > limit else 1.0


class Adam:
    """The optimiser's state for one flat buffer of P parameters.

    Section 2 of the paper, in the order of computation that its end suggests and TensorFlow
    uses: epsilon is added to sqrt(v) *before* the bias correction, sqrt(1 - beta2^t), which goes
    into the step size. PyTorch adds it after. So epsilon here equals epsilon * sqrt(1 - beta2^t)
    there: docs/walkthrough/09-training.md derives it.
    """

    def __init__(
        self,
        parameters: Array,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        zeros: Callable | None = None,
    ):
        zeros = zeros or array_module(parameters).zeros
        self.parameters = parameters
        self.learning_rate, self.beta1, self.beta2 = learning_rate, beta1, beta2
        self.epsilon = epsilon
        self.m = zeros(parameters.shape, parameters.dtype)
        self.v = zeros(parameters.shape, parameters.dtype)
        self.t = 0

    def step(self, gradient: Array, scale: float = 1.0) -> None:
        """One update of the parameters in place, by scale * gradient. gradient: (P,)."""
        self.t += 1
        self.update(gradient, self.t, self.learning_rate, scale)

    def update(
        self,
        gradient: Array,
        t: int,
        learning_rate: float,
        scale: float = 1.0,
        share: int = 0,
        shares: int = 1,
    ) -> None:
        """What step number t does to every block that falls to `share` among `shares`."""
        xp = array_module(gradient)
        rate = learning_rate * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        work = xp.empty_like(gradient[blocks(gradient)[0]])
        for block in blocks(gradient, share, shares):
            g, m, v = gradient[block], self.m[block], self.v[block]
            w = work[: g.size]  # whatever lies between two steps: it stays in the cache
            if scale != 1:
                g *= scale
            xp.subtract(g, m, out=w)
            w *= 1 - self.beta1
            m += w  # m + (1 - beta1) (g - m)
            xp.multiply(g, g, out=w)
            w -= v
            w *= 1 - self.beta2
            v += w  # v + (1 - beta2) (g^2 - v)
            xp.sqrt(v, out=w)
            w += self.epsilon
            xp.divide(m, w, out=w)
            w *= rate
            self.parameters[block] -= w  # rate m / (sqrt(v) + epsilon)
