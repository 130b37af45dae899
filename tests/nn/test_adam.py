"""Adam and clipping by the global norm. (Compared with PyTorch: tests/model/test_decoder.py.)"""

import math

import numpy
import pytest

from minicap.nn.adam import BLOCK, Adam, add_gradients, clip_scale


def test_three_steps_with_scalars():
    """The formula in the documentation of tf.train.AdamOptimizer, with Python's floats:
    lr_t = lr sqrt(1 - beta2^t) / (1 - beta1^t), p -= lr_t m / (sqrt(v) + epsilon).

    Some gradients are as small as epsilon, so the place where epsilon is added matters.
    """
    gradients = [[3e-8, 0.5], [-1e-8, -0.2], [2e-8, 0.1]]
    parameters = numpy.array([1.0, -2.0])
    adam = Adam(parameters, learning_rate=0.1, beta1=0.8, beta2=0.99, epsilon=1e-8)
    expected, m, v = [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for t, gradient in enumerate(gradients, start=1):
        adam.step(numpy.array(gradient))
        rate = 0.1 * math.sqrt(1 - 0.99**t) / (1 - 0.8**t)
        for k, g in enumerate(gradient):
            m[k] = 0.8 * m[k] + 0.2 * g
            v[k] = 0.99 * v[k] + 0.01 * g * g
            expected[k] -= rate * m[k] / (math.sqrt(v[k]) + 1e-8)
        numpy.testing.assert_allclose(parameters, expected, rtol=1e-13)
    assert adam.t == 3


def test_first_step_is_the_learning_rate():
    """The bias correction makes the first step independent of the gradient's size."""
    parameters = numpy.zeros(3)
    Adam(parameters, learning_rate=1e-3).step(numpy.array([1e3, -1e-3, 0.0]))
    numpy.testing.assert_allclose(parameters, [-1e-3, 1e-3, 0], rtol=1e-3)


def test_the_block_size_does_not_change_the_update():
    rng = numpy.random.default_rng(0)
    gradient = rng.standard_normal(2 * BLOCK + 10)
    whole, halves = numpy.zeros_like(gradient), numpy.zeros_like(gradient)
    Adam(whole).step(gradient)
    for part in (slice(0, 1000), slice(1000, None)):
        Adam(halves[part]).step(gradient[part])
    assert (whole == halves).all() and (whole != 0).all()


def test_float32_stays_float32():
    parameters = numpy.zeros(3, dtype="float32")
    adam = Adam(parameters)
    adam.step(numpy.ones(3, dtype="float32"))
    assert adam.m.dtype == adam.v.dtype == parameters.dtype == numpy.float32


def test_clipping_uses_the_global_norm():
    """The norm of (3, 4, 12) is 13, however its squares are grouped."""
    for squares in ([9, 16, 144], [25, 144], [169]):
        assert clip_scale(squares, 6.5) == 0.5


def test_clipping_leaves_short_gradients_alone():
    assert clip_scale([9, 16], 5.5) == 1 == clip_scale([0], 1)


def test_scale_multiplies_the_gradient():
    gradient = numpy.random.default_rng(0).standard_normal(9)
    ends = []
    for scale in (1, 0.25):
        adam = Adam(numpy.zeros(9), epsilon=0.1)
        adam.step(gradient / scale, scale)
        ends.append(adam.parameters)
    numpy.testing.assert_allclose(ends[0], ends[1], rtol=1e-15)


@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_clipping_agrees_with_pytorch(limit):
    """PyTorch divides by norm + 1e-6; minicap divides by the norm."""
    torch = pytest.importorskip("torch", reason="the oracle needs PyTorch")
    gradient = numpy.random.default_rng(0).standard_normal(50)
    theirs = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    theirs.grad = torch.tensor(gradient)
    norm = torch.nn.utils.clip_grad_norm_(theirs, limit).item()
    added = norm / (norm + 1e-6) if norm > limit else 1
    clipped = gradient * clip_scale(add_gradients([gradient]), limit)
    numpy.testing.assert_allclose(clipped * added, theirs.grad.numpy(), rtol=1e-14)


SIZE = 5 * BLOCK + 17  # workers get different numbers of blocks; the last block is partial


def test_the_update_does_not_depend_on_the_number_of_workers():
    """Two or three workers, each with its own blocks, give bitwise the result of one."""
    start, gradient = numpy.random.default_rng(5).standard_normal((2, SIZE)).astype("float32")
    ends = []
    for num_workers in (1, 2, 3):
        adam = Adam(start.copy())
        for t in (1, 2):
            for worker in range(num_workers):
                adam.update(gradient, t, 1e-3, 1.0, worker, num_workers)
        ends.append(adam.parameters)
    assert (ends[0] != start).all()
    assert all((end == ends[0]).all() for end in ends)


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_the_sum_of_gradients_does_not_depend_on_the_number_of_workers(num_workers):
    """All gradients are added to the first, and each block's squares are counted once."""
    gradients = numpy.random.default_rng(5).standard_normal((3, SIZE))
    expected = gradients.sum(axis=0)
    squares = [add_gradients(gradients, worker, num_workers) for worker in range(num_workers)]
    numpy.testing.assert_allclose(gradients[0], expected, rtol=0, atol=1e-14)
    assert math.fsum(sum(squares, [])) == pytest.approx(expected @ expected, rel=1e-12)
