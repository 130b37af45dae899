"""Initial values of parameters."""

import math

import numpy

from minicap.nn.initializers import glorot_uniform


def test_glorot_uniform_has_its_range_and_variance():
    """Range +-sqrt(6 / (in + out)), variance limit^2 / 3. (2 % is six standard deviations of the
    variance of 60,000 uniform samples.)"""
    W = glorot_uniform(numpy.random.default_rng(0), 200, 300)
    limit = math.sqrt(6 / 500)
    assert W.shape == (200, 300)
    assert 0.999 * limit < numpy.abs(W).max() <= limit
    assert abs(W.var() / (limit**2 / 3) - 1) < 0.022
