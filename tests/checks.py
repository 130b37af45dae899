"""Gradient checks as assertions, for the tests of every layer."""

import numpy

from minicap.nn.gradient_cases import layer_cases
from minicap.nn.gradient_check import (
    CENTRAL_DIFFERENCE_TOLERANCE,
    COMPLEX_STEP_TOLERANCE,
    as_loss,
    check_coordinates,
    check_loss,
)

SEEDS = range(3)


def assert_small(errors, tolerance):
    """Assert that every error is at most `tolerance`. NaN fails."""
    assert all(error <= tolerance for error in errors.values()), errors


def assert_complex_step(case):
    """Assert that the gradients of a case of `layer_cases` agree with the complex step."""
    for seed in SEEDS:
        rng = numpy.random.default_rng(seed)
        layer, inputs = layer_cases(rng)[case]
        errors = check_loss(as_loss(layer, inputs, rng), inputs, rng)
        assert_small(errors, COMPLEX_STEP_TOLERANCE)


def assert_central_differences(case):
    """Assert that they agree with central differences in every coordinate."""
    rng = numpy.random.default_rng(0)
    layer, inputs = layer_cases(rng)[case]
    assert_small(
        check_coordinates(as_loss(layer, inputs, rng), inputs), CENTRAL_DIFFERENCE_TOLERANCE
    )


def cube(scale=1.0):
    """Make a layer, y = x^3, whose backward pass is wrong by a factor."""

    def layer(x):
        return x**3, lambda dy: scale * 3 * x**2 * dy

    return layer
