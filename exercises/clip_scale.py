"""Gradient clipping. Chapter 9 of the walkthrough."""

from collections.abc import Sequence


def clip_scale(squares: Sequence[float], limit: float) -> float:
    """Compute the factor that clips a gradient to a maximum norm.

    The norm is the square root of the sum of the squares of all numbers. `squares` has a sum of
    squares for each block of the gradient. A gradient whose norm is within the limit is unchanged.
    """
    raise NotImplementedError
