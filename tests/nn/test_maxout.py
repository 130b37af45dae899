"""maxout_step: the cell whose new values are the greater of two."""

import numpy
import pytest

from minicap.nn.lstm import lstm, lstm_step
from minicap.nn.maxout import maxout_step
from tests.checks import assert_central_differences, assert_complex_step


@pytest.mark.gradcheck
def test_complex_step():
    assert_complex_step("maxout_step")


@pytest.mark.gradcheck
def test_complex_step_of_ragged_sequences():
    assert_complex_step("lstm, maxout")


@pytest.mark.gradcheck
@pytest.mark.parametrize("case", ["maxout_step", "lstm, maxout"])
def test_central_differences(case):
    assert_central_differences(case)


def numbers(N=5, H=3):
    """z, c, dh, dc."""
    rng = numpy.random.default_rng(0)
    return [rng.standard_normal(shape) for shape in ((N, 5 * H), *3 * [(N, H)])]


def test_a_second_that_is_never_the_greater_is_not_there():
    """Then it is lstm_step, bit for bit; and the second has no gradient at all."""
    z, c, dh, dc = numbers()
    z[:, 12:] = -1e3
    *found, backward = maxout_step(z, c)
    *expected, step_backward = lstm_step(z[:, :12], c)
    dz, dc_before = backward(dh, dc)
    found += [dz[:, :12], dc_before]
    expected += step_backward(dh, dc)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours == theirs).all()
    assert (dz[:, 12:] == 0).all()


def test_it_makes_no_difference_which_is_the_first():
    """The two change places: so do their gradients, and nothing else."""
    z, c, dh, dc = numbers()
    places = numpy.arange(15).reshape(5, 3)
    places = places[[0, 4, 2, 3, 1]].ravel()
    h, c_next, backward = maxout_step(z, c)
    other_h, other_c, other_backward = maxout_step(z[:, places], c)
    assert (h == other_h).all() and (c_next == other_c).all()
    (dz, before), (other_dz, other_before) = backward(dh, dc), other_backward(dh, dc)
    assert (dz[:, places] == other_dz).all() and (before == other_before).all()
    assert ((dz[:, 3:6] == 0) != (dz[:, 12:] == 0)).all()  # always one of the two


def test_out_may_be_a_slice_or_z_itself():
    """And without it, z stays as it is."""
    z, c, dh, dc = numbers()
    kept = z.copy()
    h, c_next, backward = maxout_step(z, c)
    dz, before = backward(dh, dc)
    assert (z == kept).all()
    room, dz_room = numpy.full((2, 9, 15), numpy.nan)
    room[2:7] = z
    for given, out in (z, numpy.empty((7, 15))[1:6]), (room[2:7], room[2:7]):
        other_h, other_c, other_backward = maxout_step(given, c, out=out)
        other_dz, other_before = other_backward(dh, dc, out=dz_room[2:7])
        assert (h == other_h).all() and (c_next == other_c).all() and (before == other_before).all()
        assert other_dz.base is dz_room.base and (other_dz == dz).all()


def test_float32_stays_float32_along_a_sequence():
    rng = numpy.random.default_rng(0)
    shapes = (3, 10), (2, 2), (2, 2), (2, 10)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    h, backward = lstm(*arrays, sizes=[2, 1], step=maxout_step)
    assert {a.dtype.name for a in (h, *backward(numpy.ones_like(h)))} == {"float32"}
