"""embedding: rows of a table."""

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
def test_repeated_rows_collect_all_gradients_and_unused_rows_none():
    """Whatever lay in `out` before, a word that is not in the batch ends with exactly 0."""
    y, backward = embedding(numpy.array([2, 0, 2]), numpy.eye(4))
    assert (y == numpy.eye(4)[[2, 0, 2]]).all()
    out = numpy.full((4, 4), numpy.nan)
    dtable = backward(numpy.array([[1.0] * 4, [10.0] * 4, [100.0] * 4]), out=out)
    assert dtable is out
    assert dtable[:, 0].tolist() == [10, 0, 101, 0]


def test_no_rows_at_all():
    dtable = embedding(numpy.array([], dtype=int), numpy.eye(4))[1](numpy.empty((0, 4)))
    assert (dtable == 0).all()
