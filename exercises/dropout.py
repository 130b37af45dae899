"""Dropout. Chapter 4 of the walkthrough."""

from numpy import ndarray


def dropout(x: ndarray, mask: ndarray):
    """y = x * mask, element by element; the mask is drawn beforehand, 0 or 1 / keep probability.

    Returns y and backward(dy) -> dx. The mask is a constant; what is the derivative of x * mask?
    """
    raise NotImplementedError
