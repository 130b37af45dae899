"""Clipping. Chapter 9 of the walkthrough."""

from numpy import ndarray


def clip_by_global_norm(gradient: ndarray, limit: float) -> float:
    """Scale `gradient` (P,), in place, so that its length, the root of the sum of its squares, is
    `limit` at the most. Its direction stays, and a short gradient stays as it is. Returns the
    length that it had before."""
    raise NotImplementedError
