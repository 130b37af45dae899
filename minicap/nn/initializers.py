"""Initial values of parameters."""

import math

import numpy


def glorot_uniform(rng: numpy.random.Generator, fan_in: int, fan_out: int) -> numpy.ndarray:
    """Draw a weight matrix from the uniform distribution within +-sqrt(6 / (fan_in + fan_out)).

    This keeps the variances of activations and of gradients about the same from layer to layer
    (Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", eq. 16).

    Args:
        rng: random number generator.
        fan_in: number of inputs I.
        fan_out: number of outputs O.

    Returns:
        W (I, O), float64.
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, (fan_in, fan_out))
