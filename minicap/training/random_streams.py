"""Random number streams: the source of all randomness in a run.

Each stream is named by the seed, a purpose and, where it applies, the epoch and the step. A resumed
run therefore needs no saved generator state. Streams of a step cover the whole batch, so that no
random number depends on the number of workers.
"""

from enum import IntEnum

import numpy


class Purpose(IntEnum):
    """What a stream of random numbers is for."""

    INITIAL = 0
    """initial parameters"""
    ORDER = 1
    """the order of an epoch's captions or images"""
    SAMPLE = 2
    """one caption for each image, or the words of sampled captions"""
    MASKS = 3
    """dropout masks"""
    VALIDATION = 4
    """random dev batches"""


def stream(seed: int, purpose: Purpose, *place: int) -> numpy.random.Generator:
    """Return the random number generator for one purpose at one place in the run.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for.
        *place: such as (epoch, step).
    """
    return numpy.random.default_rng([seed, int(purpose), *place])
