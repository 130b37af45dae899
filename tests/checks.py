"""The gradient checks, as assertions that every layer's test file calls."""

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
    """Every error is within `tolerance`: a NaN is not."""
    assert all(error <= tolerance for error in errors.values()), errors


def assert_complex_step(case):
    """The layer's gradients agree with the complex step, for each input."""
    for seed in SEEDS:
        rng = numpy.random.default_rng(seed)
        layer, inputs = layer_cases(rng)[case]
        errors = check_loss(as_loss(layer, inputs, rng), inputs, rng)
        assert_small(errors, COMPLEX_STEP_TOLERANCE)


def assert_central_differences(case):
    """The layer's gradients agree with central differences, in every coordinate."""
    rng = numpy.random.default_rng(0)
    layer, inputs = layer_cases(rng)[case]
    assert_small(
        check_coordinates(as_loss(layer, inputs, rng), inputs), CENTRAL_DIFFERENCE_TOLERANCE
    )
