"""The checks themselves: do they know right from wrong, and NaN from right?"""

import numpy
import pytest

from minicap import gradcheck
from minicap.nn.gradient_check import (
    central_difference,
    check_coordinates,
    check_layer,
    check_loss,
    complex_step,
    disagreement,
)
from minicap.utils.errors import UserError


def cube(wrong=1.0):
    """A layer, x^3, whose backward pass is off by a factor."""

    def layer(x):
        return x**3, lambda dy: wrong * 3 * x**2 * dy

    return layer


def test_complex_step_is_right_to_the_last_digits():
    """On the function of Squire and Trapp's paper, with the derivative worked out by hand."""
    x = numpy.array(1.5)
    s, c, e = numpy.sin(x), numpy.cos(x), numpy.exp(x)
    bottom = c**3 + s**3
    exact = e / bottom**0.5 - e * 3 * s * c * (s - c) / (2 * bottom**1.5)

    def f(x):
        return numpy.exp(x) / numpy.sqrt(numpy.cos(x) ** 3 + numpy.sin(x) ** 3)

    assert complex_step(f, x, numpy.array(1.0)) == pytest.approx(exact, rel=1e-14, abs=0)
    assert central_difference(f, x) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("scale", [0.98, 1 + 1e-11, numpy.nan])
def test_a_wrong_gradient_is_seen(scale):
    """2 %, the eleventh digit, and NaN, which is smaller than nothing."""
    x = {"x": numpy.array([1.0, -2.0, 3.0])}
    rng = numpy.random.default_rng(0)
    assert check_layer(cube(), x, rng)["x"] < 1e-15
    assert not check_layer(cube(scale), x, rng)["x"] <= gradcheck.COMPLEX_STEP_TOLERANCE


def test_directions_that_cancel_do_not_make_a_good_gradient_look_bad():
    """Its products are 1 and -1; an error of 1e-16 beside their sum, 0, would look infinite."""
    gradient, direction = numpy.array([1.0, 1.0]), numpy.array([1.0, -1.0])
    assert disagreement(1e-16, gradient, direction) == 5e-17


def test_a_gradient_that_is_never_written_is_seen():
    def loss(p):
        return p["a"].sum() + p["b"].sum(), lambda gradients: gradients["a"].fill(1)

    parameters = {"a": numpy.ones(2), "b": numpy.ones(2)}
    for errors in (
        check_loss(loss, parameters, numpy.random.default_rng(0)),
        check_coordinates(loss, parameters),
    ):
        assert errors["a"] < 1e-9 and numpy.isnan(errors["b"])


def test_a_gradient_of_the_wrong_shape_is_named():
    def layer(x):
        return x.sum(axis=0), lambda dy: dy

    with pytest.raises(ValueError, match=r"x is \(4, 3\).*\(3,\)"):
        check_layer(layer, {"x": numpy.ones((4, 3))}, numpy.random.default_rng(0))


def test_central_differences_see_what_the_complex_step_cannot():
    """abs is not analytic in code: the second witness has no such blind spot."""
    x = numpy.array([-2.0, 3.0])
    along_2nd = numpy.array([0.0, 1.0])
    assert complex_step(lambda x: abs(x).sum(), x, along_2nd) != 1
    assert central_difference(lambda x: abs(x).sum(), x) == pytest.approx([-1, 1])


@pytest.mark.gradcheck
def test_the_command_finds_everything_right(capsys):
    assert gradcheck.main(["--seed", "7", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    assert "all 30 are right" in output and "WRONG" not in output


@pytest.mark.parametrize("scale", [1.02, numpy.nan])
def test_the_command_ends_with_1_if_a_layer_is_wrong(monkeypatch, capsys, scale):
    x = {"x": numpy.array([1.0, -2.0])}

    def cases(rng):
        for name, layer in ("good", cube()), ("bad", cube(scale)), ("good again", cube()):
            yield name, gradcheck.as_loss(layer, x, rng), x

    monkeypatch.setattr(gradcheck, "own_cases", cases)
    assert gradcheck.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("WRONG")] == ["bad"]
    assert lines[-1] == "1 of 3 are wrong"


def test_no_rounds_prove_nothing():
    with pytest.raises(UserError, match="--rounds must be 1 or more"):
        gradcheck.main(["--rounds", "0"])
