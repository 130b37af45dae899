"""label_smoothing: what it adds to the loss, and to gradients that are there."""

import numpy
import pytest

from minicap.nn.cross_entropy import project_cross_entropy
from minicap.nn.label_smoothing import label_smoothing
from tests.checks import assert_central_differences, assert_complex_step
from tests.nn.test_cross_entropy import example


@pytest.mark.gradcheck
def test_complex_step():
    """With weights, a divisor, and 38 targets of nine words: all are repeated."""
    assert_complex_step("label_smoothing")


@pytest.mark.gradcheck
def test_central_differences():
    assert_central_differences("label_smoothing")


@pytest.mark.parametrize("weighted", [True, False])
def test_with_the_cross_entropy_it_is_the_loss_of_the_smoothed_targets(weighted):
    """Their distribution q written out, word by word; its gradient for the logits is p - q."""
    x, Wb, targets, weights = example(20)
    q = numpy.full((20, 9), 0.1 / 9)
    q[numpy.arange(20), targets] += 0.9
    logits = x @ Wb[:-1] + Wb[-1]
    p = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
    scale = (weights if weighted else numpy.ones(20)) / 17
    arguments = x, Wb, targets, weights if weighted else None, 17

    loss, backward = project_cross_entropy(*arguments)
    term, add = label_smoothing(*arguments, 0.1)
    expected = -((q * numpy.log(p)).sum(axis=1) * scale).sum()
    assert loss + term == pytest.approx(expected, rel=1e-12, abs=0)
    dx, dWb = backward()
    add(dx, dWb)
    dlogits = (p - q) * scale[:, None]
    numpy.testing.assert_allclose(dx, dlogits @ Wb[:-1].T, rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(dWb[:-1], x.T @ dlogits, rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(dWb[-1], dlogits.sum(axis=0), rtol=0, atol=1e-12)


def test_it_stays_in_float32():
    x, Wb, targets, weights = (a.astype("float32") if a.dtype == float else a for a in example(5))
    term, add = label_smoothing(x, Wb, targets, weights, 5, 0.1)
    dx, dWb = numpy.zeros_like(x), numpy.zeros_like(Wb)
    add(dx, dWb)
    assert term.dtype == "float32" and dx.any() and dWb.any()
