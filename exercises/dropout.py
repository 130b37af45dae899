"""Dropout. Chapter 4 of the walkthrough."""

from numpy import ndarray


def dropout(x: ndarray, mask: ndarray):
    """Multiply by a dropout mask, y = x * mask, element by element.

    mask: same shape as x; 0 or 1 / (1 - rate). It is a constant: what is the derivative of
    x * mask?

    Returns y and backward(dy), which returns dx.
    """
    raise NotImplementedError
