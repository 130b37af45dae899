"""Adam (Kingma and Ba 2015) as tf.train.AdamOptimizer has it, and clipping by the global norm."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType

from minicap.backend import Array, array_module, blocks, fused

BLOCK = 1 << 15  # numbers: all that a block's update touches stays in the cache


def add_gradients(gradients: Sequence[Array], worker: int = 0, num_workers: int = 1) -> list[Array]:
    """Add all gradients into the first, in place, block by block.

    gradients: (P,) each, one or more. Returns each block's sum of squares (0-d), for
    `clip_scale`.
    """
    first, *others = gradients
    squares = []
    for block in blocks(first, BLOCK, worker, num_workers):
        g = first[block]
        for other in others:
            g += other[block]
        squares.append(g @ g)
    return squares


def clip_scale(squares: Sequence[Array], limit: float) -> float:
    """What to multiply a gradient by so that its norm is `limit` at the most (Pascanu et al. 2013).

    squares: sums of squares of its parts, in any order; limit > 0.
    """
    norm = math.sqrt(math.fsum(map(float, squares)))
    return limit / norm if norm > limit else 1.0


@fused
def adam(
    xp: ModuleType,
    g: Array,
    m: Array,
    v: Array,
    theta: Array,
    w: Array,
    rate1: float,
    rate2: float,
    epsilon: float,
    rate: float,
) -> None:
    """Some parameters theta, and their m and v, after the gradient g; all of them (P,).

    w: (P,), room for whatever lies between two lines; rate1, rate2: 1 - beta1, 1 - beta2;
    rate: the step size with both bias corrections.
    """
    xp.subtract(g, m, out=w)
    w *= rate1
    m += w  # m + (1 - beta1) (g - m)
    xp.multiply(g, g, out=w)
    w -= v
    w *= rate2
    v += w  # v + (1 - beta2) (g^2 - v)
    xp.sqrt(v, out=w)
    w += epsilon
    xp.divide(m, w, out=w)
    w *= rate
    theta -= w  # rate m / (sqrt(v) + epsilon)


class Adam:
    """The optimiser's state for one flat buffer of P parameters.

    Section 2 of the paper, in the order of computation that its end suggests and TensorFlow
    uses: epsilon is added to sqrt(v) *before* the bias correction, sqrt(1 - beta2^t), which goes
    into the step size. PyTorch adds it after. So epsilon here does what epsilon / sqrt(1 - beta2^t)
    does there: docs/walkthrough/09-training.md derives it.
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
        worker: int = 0,
        num_workers: int = 1,
    ) -> None:
        """What step number t does to every block that falls to `worker` among `num_workers`."""
        rates = 1 - self.beta1, 1 - self.beta2
        rate = learning_rate * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        work = array_module(gradient).empty_like(gradient[blocks(gradient, BLOCK)[0]])
        for block in blocks(gradient, BLOCK, worker, num_workers):
            g, m, v, theta = (x[block] for x in (gradient, self.m, self.v, self.parameters))
            if scale != 1:
                g *= scale
            adam(g, m, v, theta, work[: g.size], *rates, self.epsilon, rate)
