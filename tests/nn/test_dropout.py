"""Dropout and its masks."""

import numpy
import pytest

from minicap.nn.dropout import draw_mask, dropout
from tests.checks import assert_central_differences, assert_complex_step


@pytest.mark.gradcheck
def test_complex_step():
    assert_complex_step("dropout")


@pytest.mark.gradcheck
def test_central_differences():
    assert_central_differences("dropout")


@pytest.mark.gradcheck
def test_dropped_inputs_have_exactly_zero_gradient():
    mask = draw_mask(numpy.random.default_rng(0), (20, 10), 0.5, "float64")
    _, backward = dropout(numpy.ones((20, 10)), mask)
    dx = backward(numpy.random.default_rng(1).standard_normal((20, 10)))
    assert (dx[mask == 0] == 0).all() and (dx[mask != 0] != 0).all()


def test_no_mask_changes_nothing():
    x, dy = numpy.ones(3), numpy.arange(3.0)
    y, backward = dropout(x, None)
    assert y is x and backward(dy) is dy


def test_mask_keeps_the_mean():
    """The mask is 0 with probability 0.3 and 1 / 0.7 otherwise. The fraction of zeros among 100,000
    has a standard deviation of 0.0014; six of them are allowed."""
    mask = draw_mask(numpy.random.default_rng(0), (1000, 100), 0.3)
    assert mask.dtype == numpy.float32
    assert set(numpy.unique(mask).tolist()) == {0, numpy.float32(1 / 0.7)}
    assert abs((mask == 0).mean() - 0.3) < 6 * 0.0015


def test_the_generator_determines_the_mask():
    first, again, other = (draw_mask(numpy.random.default_rng(s), (8, 8), 0.5) for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
