"""Where parameters start."""

import math

import numpy

from minicap.nn.initializers import glorot_uniform


def test_glorot_uniform_fills_its_bounds_evenly():
    """Within +-sqrt(6 / (in + out)), and with a uniform distribution's variance, limit^2 / 3
    (2 % is six standard deviations of the variance of 60,000 uniform numbers)."""
    W = glorot_uniform(numpy.random.default_rng(0), 200, 300)
    limit = math.sqrt(6 / 500)
    assert W.shape == (200, 300)
    assert 0.999 * limit < numpy.abs(W).max() <= limit
    assert abs(W.var() / (limit**2 / 3) - 1) < 0.022
