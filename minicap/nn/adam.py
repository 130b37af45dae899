"""Adam (Kingma and Ba 2015) as tf.train.AdamOptimizer has it, and clipping by the global norm."""

import math
from collections.abc import Callable

from minicap.backend import Array, array_module

BLOCK = 1 << 17  # numbers: few enough for the cache, many enough that threads seldom meet


def clip_by_global_norm(gradient: Array, limit: float) -> float:
    """Scale `gradient` in place so that its norm is `limit` at the most (Pascanu et al. 2013).

    gradient: (P,), all gradients in one flat buffer; limit > 0. Returns the norm before.
    """
    norm = math.sqrt(float(gradient @ gradient))
    if norm > limit:
        gradient *= limit / norm
    return norm


class Adam:
    """The optimiser's state for one flat buffer of P parameters.

    Section 2 of the paper, in the order of computation that its end suggests and TensorFlow
    uses: epsilon is added to sqrt(v) *before* the bias correction, sqrt(1 - beta2^t), which goes
    into the step size. PyTorch adds it after. So epsilon here equals epsilon * sqrt(1 - beta2^t)
    there: docs/calculus.md derives it.
    """

    def __init__(
        self,
        parameters: Array,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ):
        xp = array_module(parameters)
        self.parameters = parameters
        self.learning_rate, self.beta1, self.beta2 = learning_rate, beta1, beta2
        self.epsilon = epsilon
        self.m = xp.zeros_like(parameters)
        self.v = xp.zeros_like(parameters)
        self.t = 0

    def step(self, gradient: Array, run: Callable = map, shares: int = 1) -> None:
        """One update of the parameters in place. gradient: (P,).

        run: a `map`, for example that of a pool of `shares` threads, each of which then updates
        its share of the blocks. The result does not depend on it.
        """
        xp = array_module(gradient)
        self.t += 1
        rate = self.learning_rate * math.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)

        def update(share: int) -> None:
            work = xp.empty(min(BLOCK, gradient.size), dtype=gradient.dtype)
            for start in range(share * BLOCK, gradient.size, shares * BLOCK):
                block = slice(start, start + BLOCK)
                g, m, v = gradient[block], self.m[block], self.v[block]
                w = work[: g.size]  # whatever lies between two steps: it stays in the cache
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

        list(run(update, range(shares)))
