"""Adam. Chapter 9 of the walkthrough."""

from numpy import ndarray


class Adam:
    """m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,   then, as TensorFlow has it,

        theta <- theta - rate_t m / (sqrt(v) + epsilon)
        rate_t = learning_rate sqrt(1 - beta2^t) / (1 - beta1^t)

    at the t-th step, t = 1, 2, ...; m and v start at zero; all element by element.
    """

    def __init__(
        self, parameters: ndarray, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8
    ):
        """Remember what `step` needs."""
        raise NotImplementedError

    def step(self, gradient: ndarray) -> None:
        """One update of the parameters, in place."""
        raise NotImplementedError
