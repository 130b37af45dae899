"""The gradient checks accept correct gradients and reject wrong ones and NaN."""

import numpy
import pytest

from minicap.nn.gradient_check import (
    COMPLEX_STEP_TOLERANCE,
    central_difference,
    check_coordinates,
    check_layer,
    check_loss,
    complex_step,
    relative_error,
)
from tests.checks import cube


def test_the_complex_step_is_accurate_to_the_last_digits():
    """The function of Squire and Trapp's paper, with its derivative derived by hand."""
    x = numpy.array(1.5)
    s, c, e = numpy.sin(x), numpy.cos(x), numpy.exp(x)
    bottom = c**3 + s**3
    exact = e / bottom**0.5 - e * 3 * s * c * (s - c) / (2 * bottom**1.5)

    def f(x):
        return numpy.exp(x) / numpy.sqrt(numpy.cos(x) ** 3 + numpy.sin(x) ** 3)

    assert complex_step(f, x, numpy.array(1.0)) == pytest.approx(exact, rel=1e-14, abs=0)
    assert central_difference(f, x) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("scale", [0.98, 1 + 1e-11, numpy.nan])
def test_a_wrong_gradient_is_rejected(scale):
    """Off by 2 %, off by 1e-11, and NaN."""
    x = {"x": numpy.array([1.0, -2.0, 3.0])}
    rng = numpy.random.default_rng(0)
    assert check_layer(cube(), x, rng)["x"] < 1e-15
    assert not check_layer(cube(scale), x, rng)["x"] <= COMPLEX_STEP_TOLERANCE


def test_cancelling_products_do_not_inflate_the_error():
    """The products are 1 and -1: relative to their sum, 0, an error of 1e-16 would be infinite."""
    gradient, direction = numpy.array([1.0, 1.0]), numpy.array([1.0, -1.0])
    assert relative_error(1e-16, gradient, direction) == 5e-17


def test_a_missing_gradient_is_rejected():
    def loss(p):
        return p["a"].sum() + p["b"].sum(), lambda gradients: gradients["a"].fill(1)

    parameters = {"a": numpy.ones(2), "b": numpy.ones(2)}
    for errors in (
        check_loss(loss, parameters, numpy.random.default_rng(0)),
        check_coordinates(loss, parameters),
    ):
        assert errors["a"] < 1e-9 and numpy.isnan(errors["b"])


def test_a_gradient_of_the_wrong_shape_raises():
    def layer(x):
        return x.sum(axis=0), lambda dy: dy

    with pytest.raises(ValueError, match=r"x has shape \(4, 3\).*\(3,\)"):
        check_layer(layer, {"x": numpy.ones((4, 3))}, numpy.random.default_rng(0))


def test_central_differences_work_where_the_complex_step_fails():
    """abs is not analytic, so the complex step is wrong."""
    x = numpy.array([-2.0, 3.0])
    along_2nd = numpy.array([0.0, 1.0])
    assert complex_step(lambda x: abs(x).sum(), x, along_2nd) != 1
    assert central_difference(lambda x: abs(x).sum(), x) == pytest.approx([-1, 1])
