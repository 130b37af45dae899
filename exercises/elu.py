"""The exponential linear unit. Chapter 4 of the walkthrough."""

from numpy import ndarray


def elu(z: ndarray):
    """Apply the ELU: y = z where z > 0, exp(z) - 1 elsewhere. z: any shape.

    Returns y and backward(dy), which returns dz. With the loss L and dy = dL/dy, element by
    element,

        dz = dy * slope,    slope = 1 where z > 0, exp(z) elsewhere.

    Can you compute the slope from y alone, without a comparison?
    """
    raise NotImplementedError
