"""The embedding layer."""

import numpy
import pytest

from minicap.nn.embedding import embedding
from tests.checks import assert_central_differences, assert_complex_step


@pytest.mark.gradcheck
def test_complex_step():
    assert_complex_step("embedding")


@pytest.mark.gradcheck
def test_central_differences():
    assert_central_differences("embedding")


@pytest.mark.gradcheck
def test_repeated_words_add_up_and_absent_words_have_zero_gradient():
    """The row of an absent word is exactly 0, whatever `out` contained."""
    y, backward = embedding(numpy.array([2, 0, 2]), numpy.eye(4))
    assert (y == numpy.eye(4)[[2, 0, 2]]).all()
    out = numpy.full((4, 4), numpy.nan)
    dtable = backward(numpy.array([[1.0] * 4, [10.0] * 4, [100.0] * 4]), out=out)
    assert dtable is out
    assert dtable[:, 0].tolist() == [10, 0, 101, 0]


def test_no_rows():
    dtable = embedding(numpy.array([], dtype=int), numpy.eye(4))[1](numpy.empty((0, 4)))
    assert (dtable == 0).all()
