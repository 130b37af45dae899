"""The dense layer and the ELU."""

import numpy
import pytest

from minicap.nn.dense import dense, elu
from minicap.nn.gradient_check import complex_step
from tests.checks import assert_central_differences, assert_complex_step


@pytest.mark.gradcheck
def test_complex_step():
    assert_complex_step("dense")


@pytest.mark.gradcheck
def test_complex_step_with_elu_and_square_weights():
    assert_complex_step("dense, elu")


@pytest.mark.gradcheck
@pytest.mark.parametrize("case", ["dense", "dense, elu"])
def test_central_differences(case):
    assert_central_differences(case)


@pytest.mark.gradcheck
def test_elu_is_differentiable_at_0():
    """The slope at exactly 0 is 1 from both sides, for the complex step and the backward pass. An
    untrained layer is evaluated there if dropout drops its whole input."""
    z = numpy.zeros(2)
    y, backward = elu(z)
    assert (complex_step(lambda z: elu(z)[0], z, numpy.array([1.0, -1.0])) == [1, -1]).all()
    assert (y == 0).all() and (backward(numpy.ones(2)) == 1).all()


def test_elu_values():
    """Equation 15 of the paper; no overflow far from 0."""
    with numpy.errstate(over="raise"):
        y, backward = elu(numpy.array([-1e4, -1.0, 0.5, 1e4]))
    numpy.testing.assert_allclose(y, [-1, numpy.exp(-1) - 1, 0.5, 1e4], rtol=1e-14)
    numpy.testing.assert_allclose(backward(numpy.ones(4)), [0, numpy.exp(-1), 1, 1], rtol=1e-14)


def test_the_output_follows_its_definition():
    rng = numpy.random.default_rng(0)
    x, Wb = rng.standard_normal((2, 3)), rng.standard_normal((4, 2))
    y, _ = dense(x, Wb)
    for n in range(2):
        for o in range(2):
            expected = sum(x[n, i] * Wb[i, o] for i in range(3)) + Wb[3, o]
            assert y[n, o] == pytest.approx(expected, rel=1e-14, abs=0)


def test_backward_stores_dWb_in_out_and_skips_dx_on_request():
    rng = numpy.random.default_rng(0)
    x, Wb, dy = (rng.standard_normal(shape) for shape in [(2, 3), (4, 2), (2, 2)])
    out = numpy.full_like(Wb, numpy.nan)
    dx, dWb = dense(x, Wb)[1](dy, out=out, need_dx=False)
    assert dx is None and dWb is out
    assert (out == dense(x, Wb)[1](dy)[1]).all()
