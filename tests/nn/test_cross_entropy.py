"""project_cross_entropy: projection, softmax and cross-entropy in one."""

import numpy
import pytest

from minicap.nn.cross_entropy import BLOCK, project_cross_entropy
from tests.checks import assert_central_differences, assert_complex_step


def example(rows, seed=0):
    """x, Wb, targets and weights; a vocabulary of 9."""
    rng = numpy.random.default_rng(seed)
    x, Wb = rng.standard_normal((rows, 4)), rng.standard_normal((5, 9))
    return x, Wb, rng.integers(0, 9, rows), rng.uniform(0.5, 2, rows)


@pytest.mark.gradcheck
def test_complex_step():
    """With weights, a divisor, and more than one block of rows."""
    assert_complex_step("project_cross_entropy")


@pytest.mark.gradcheck
def test_central_differences():
    assert_central_differences("project_cross_entropy")


def test_the_loss_follows_its_definition():
    """-log softmax(logits)[target], computed naively, with weights and a divisor."""
    x, Wb, targets, weights = example(BLOCK + 6)
    logits = x @ Wb[:-1] + Wb[-1]
    softmax = numpy.exp(logits) / numpy.exp(logits).sum(axis=1, keepdims=True)
    nll = -numpy.log(softmax[numpy.arange(len(x)), targets])
    loss, _ = project_cross_entropy(x, Wb, targets, weights, 17)
    assert loss == pytest.approx((nll * weights).sum() / 17, rel=1e-14, abs=0)
    loss, _ = project_cross_entropy(x, Wb, targets, None, 17)
    assert loss == pytest.approx(nll.sum() / 17, rel=1e-14, abs=0)


def test_equal_logits_have_a_loss_of_log_V():
    targets = numpy.array([0, 5, 7])
    loss, _ = project_cross_entropy(numpy.ones((3, 4)), numpy.zeros((5, 8)), targets, None, 3)
    assert loss == pytest.approx(numpy.log(8), rel=1e-14, abs=0)


def test_huge_logits_do_not_overflow():
    """The target's logit is 1e4 too small: the loss is 1e4 and the gradient finite, although
    exp(1e4) overflows."""
    Wb = numpy.zeros((2, 2))
    Wb[-1] = [0, 1e4]
    with numpy.errstate(over="raise", invalid="raise", divide="raise"):
        loss, backward = project_cross_entropy(numpy.zeros((1, 1)), Wb, numpy.array([0]), None, 1)
        _, dWb = backward()
    assert loss == 1e4 and dWb[-1].tolist() == [-1, 1]


@pytest.mark.parametrize("constant", [-300.0, 300.0])
def test_a_constant_added_to_all_logits_changes_nothing(constant):
    """In float32, where exp(300) is infinite and exp(-300) is 0. The tolerance allows for the
    rounding of logits + 300 in float32."""
    x, Wb, targets, weights = example(BLOCK + 6)
    shifted = Wb.copy()
    shifted[-1] += constant
    results = []
    for parameters in Wb, shifted:
        arrays = (array.astype("float32") for array in (x, parameters))
        with numpy.errstate(over="ignore"):
            loss, backward = project_cross_entropy(*arrays, targets, None, 17)
        results.append([loss, backward()[1]])
    numpy.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-5)
    numpy.testing.assert_allclose(results[1][1], results[0][1], rtol=0, atol=1e-4)


def test_no_weights_are_weights_of_1():
    x, Wb, targets, _ = example(BLOCK + 6)
    loss, backward = project_cross_entropy(x, Wb, targets, None, 17)
    same_loss, same_backward = project_cross_entropy(x, Wb, targets, numpy.ones(len(x)), 17)
    assert loss == pytest.approx(same_loss, rel=1e-14, abs=0)
    for gradient, same in zip(backward(), same_backward(), strict=True):
        numpy.testing.assert_allclose(gradient, same, rtol=0, atol=1e-15)


def test_correct_is_where_the_target_has_the_largest_logit():
    x, Wb, targets, _ = example(2 * BLOCK)
    correct = numpy.zeros(len(x), dtype=bool)
    project_cross_entropy(x, Wb, targets, None, 1, correct=correct)
    expected = (x @ Wb[:-1] + Wb[-1]).argmax(axis=1) == targets
    assert (correct == expected).all() and 0 < correct.sum() < len(correct)


def test_the_gradient_is_stored_in_out():
    x, Wb, targets, weights = example(5)
    out = numpy.full_like(Wb, numpy.nan)
    _, dWb = project_cross_entropy(x, Wb, targets, weights, 5)[1](out=out)
    assert dWb is out and numpy.isfinite(out).all()


def test_one_row_of_huge_logits_among_others():
    """The first row costs log 2. The second, whose target's logit is 1e4 too small, costs 1e4."""
    x, Wb = numpy.array([[0.0], [1.0]]), numpy.array([[0, 1e4], [0, 0]])
    loss, backward = project_cross_entropy(x, Wb, numpy.array([0, 0]), None, 1)
    dx, dWb = backward()
    assert loss == pytest.approx(1e4 + numpy.log(2), rel=1e-14)
    assert dWb.tolist() == [[-1, 1], [-1.5, 1.5]] and dx.tolist() == [[5e3], [1e4]]
