"""Where parameters start."""

import math

import numpy


def glorot_uniform(rng: numpy.random.Generator, fan_in: int, fan_out: int) -> numpy.ndarray:
    """(fan_in, fan_out) numbers, uniform within +-sqrt(6 / (fan_in + fan_out)).

    Keeps the variance of signals and of gradients alike (Glorot and Bengio 2010, eq. 16).
    """
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, (fan_in, fan_out))
