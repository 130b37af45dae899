"""Adam. Chapter 9 of the walkthrough."""

from numpy import ndarray


class Adam:
    """The Adam optimiser, in TensorFlow's form.

    At step t = 1, 2, ..., element by element, with m and v initially zero:

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        theta <- theta - rate_t m / (sqrt(v) + epsilon)
        rate_t = learning_rate sqrt(1 - beta2^t) / (1 - beta1^t)
    """

    def __init__(
        self, parameters: ndarray, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8
    ):
        """Store what `step` needs."""
        raise NotImplementedError

    def step(self, gradient: ndarray) -> None:
        """Update the parameters in place. gradient: same shape as the parameters."""
        raise NotImplementedError
