"""The Adam optimiser and gradient clipping by the global norm."""

import math
from collections.abc import Sequence
from types import ModuleType

from minicap.backend import Allocate, Array, array_module, blocks, fused

BLOCK = 1 << 15  # numbers: everything one block's update touches stays in the cache


def add_gradients(gradients: Sequence[Array], worker: int = 0, num_workers: int = 1) -> list[Array]:
    """Add all gradients to the first, in place, and compute the sums of squares of the result.

    Args:
        gradients: one or more arrays (P,), one per worker.
        worker: which of the ``num_workers`` calls this is. Each adds its own blocks.
        num_workers: number of calls that divide the work.

    Returns:
        The sum of squares of each block, 0-d arrays, for `clip_scale`.
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
    """Compute the factor that clips a gradient to a maximum norm.

    Clipping by the global norm: Pascanu et al. 2013, "On the difficulty of training recurrent
    neural networks", algorithm 1.

    Args:
        squares: sums of squares of the gradient's blocks, in any order.
        limit: maximum norm, greater than 0.

    Returns:
        limit / norm if the norm exceeds the limit, else 1.
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
    """Apply one Adam update to a block of parameters, in place.

    Args:
        xp: array library; `fused` supplies it.
        g: (P,) gradient.
        m: (P,) moving average of the gradient.
        v: (P,) moving average of the squared gradient.
        theta: (P,) parameters.
        w: (P,) buffer for intermediate results.
        rate1: 1 - beta1.
        rate2: 1 - beta2.
        epsilon: added to sqrt(v).
        rate: step size, both bias corrections included.
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
    """Adam for one flat buffer of P parameters.

    Kingma and Ba 2015, "Adam: a method for stochastic optimization", in the form at the end of
    section 2, which TensorFlow 1 uses too: at step t = 1, 2, ...

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        theta <- theta - rate_t m / (sqrt(v) + epsilon)
        rate_t = learning_rate sqrt(1 - beta2^t) / (1 - beta1^t)

    Epsilon is added before the bias correction of v; PyTorch adds it after. Epsilon here acts like
    epsilon / sqrt(1 - beta2^t) there. docs/walkthrough/09-training.md derives it.

    Args:
        parameters: (P,) updated in place.
        learning_rate: step size.
        beta1: decay rate of m.
        beta2: decay rate of v.
        epsilon: added to sqrt(v).
        zeros: allocates m and v in place of ``xp.zeros``, in shared memory for example.

    Attributes:
        m: (P,) moving average of the gradient.
        v: (P,) moving average of the squared gradient.
        t: number of steps taken.

    Example:
        >>> optimiser = Adam(parameters.flat, learning_rate=1e-3)
        >>> optimiser.step(gradients.flat)
    """

    def __init__(
        self,
        parameters: Array,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        zeros: Allocate | None = None,
    ):
        zeros = zeros or array_module(parameters).zeros
        self.parameters = parameters
        self.learning_rate, self.beta1, self.beta2 = learning_rate, beta1, beta2
        self.epsilon = epsilon
        self.m = zeros(parameters.shape, parameters.dtype)
        self.v = zeros(parameters.shape, parameters.dtype)
        self.t = 0

    def step(self, gradient: Array, scale: float = 1.0) -> None:
        """Update the parameters in place.

        Args:
            gradient: (P,). It is multiplied by ``scale`` in place.
            scale: factor for the gradient, from `clip_scale`.
        """
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
        """Do one worker's part of step t. It does not count steps.

        Args:
            gradient: (P,) the whole gradient. The worker's blocks of it are multiplied by ``scale``
                in place.
            t: number of the step, from 1.
            learning_rate: step size.
            scale: factor for the gradient, from `clip_scale`.
            worker: which of the ``num_workers`` calls this is. Each updates its own blocks.
            num_workers: number of calls that divide the work.
        """
        rates = 1 - self.beta1, 1 - self.beta2
        rate = learning_rate * math.sqrt(1 - self.beta2**t) / (1 - self.beta1**t)
        work = array_module(gradient).empty_like(gradient[blocks(gradient, BLOCK)[0]])
        for block in blocks(gradient, BLOCK, worker, num_workers):
            g, m, v, theta = (x[block] for x in (gradient, self.m, self.v, self.parameters))
            if scale != 1:
                g *= scale
            adam(g, m, v, theta, work[: g.size], *rates, self.epsilon, rate)
