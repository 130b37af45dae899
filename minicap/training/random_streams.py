"""Where all randomness of a run comes from.

Each stream is named by (seed, purpose, place in the run), and drawn for a whole batch. So a resumed
run needs no saved generator state, and no number depends on the number of workers.
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
    """one caption for each image; or the words of sampled captions"""
    MASKS = 3
    """dropout masks"""
    VALIDATION = 4
    """random dev batches"""


def stream(seed: int, purpose: Purpose, *place: int) -> numpy.random.Generator:
    """The random number generator for one purpose at one place, such as (epoch, step)."""
    return numpy.random.default_rng([seed, int(purpose), *place])
