"""Clipping. Chapter 9 of the walkthrough."""

from collections.abc import Sequence


def clip_scale(squares: Sequence[float], limit: float) -> float:
    """What to multiply a gradient by so that its length is `limit` at the most.

    Its length is the root of the sum of the squares of all its numbers; `squares` are such sums
    of its parts. A gradient that is short enough stays as it is.
    """
    raise NotImplementedError
