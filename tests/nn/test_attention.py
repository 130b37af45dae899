"""Additive attention, for one step and in packed sequences."""

import tracemalloc

import numpy
import pytest

from minicap.nn.attention import attend, exponentials
from minicap.nn.attention_lstm import attention_lstm
from minicap.nn.lstm import lstm
from tests.checks import assert_central_differences, assert_complex_step

BATCH_SIZES = [4, 3, 3, 1]
H, K, L, A = 3, 6, 5, 2


def packed(rng, positions=L):
    """Random inputs of `attention_lstm`."""
    shapes = {
        "zx": (sum(BATCH_SIZES), 4 * H + K),
        "h0": (4, H),
        "c0": (4, H),
        "WcU": (A + H, 4 * H),
        "Wq": (H, K),
        "v": (K,),
        "keys": (4, positions, K),
        "values": (4, positions, A),
    }
    inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return inputs | {"batch_sizes": BATCH_SIZES}


@pytest.mark.gradcheck
def test_complex_step_of_one_look():
    assert_complex_step("attend")


@pytest.mark.gradcheck
def test_complex_step_of_sequences():
    assert_complex_step("attention_lstm")


@pytest.mark.gradcheck
@pytest.mark.parametrize("case", ["attend", "attention_lstm"])
def test_central_differences(case):
    assert_central_differences(case)


def test_the_weights_are_a_softmax_and_the_context_their_mean():
    rng = numpy.random.default_rng(0)
    query, keys, values, v = (rng.normal(size=s) for s in ((2, 3), (2, 4, 3), (2, 4, 5), (3,)))
    context, weights, _ = attend(query, exponentials(keys), values, v)
    for n in range(2):
        scores = [v @ numpy.tanh(keys[n, k] + query[n]) for k in range(4)]
        expected = numpy.exp(scores) / numpy.exp(scores).sum()
        numpy.testing.assert_allclose(weights[n], expected, rtol=1e-13)
        numpy.testing.assert_allclose(context[n], expected @ values[n], rtol=1e-12)


def test_large_scores_do_not_overflow():
    v = numpy.full(3, 1e4, "float32")
    keys = numpy.array([[[9, 9, 9], [-9, -9, -9]]], "float32")
    with numpy.errstate(all="raise", under="ignore"):
        _, weights, _ = attend(numpy.zeros((1, 3), "float32"), exponentials(keys), keys, v)
    assert weights.tolist() == [[1, 0]] and weights.dtype == numpy.float32


@pytest.mark.gradcheck
@pytest.mark.parametrize("query", [-60, -40, 40, 60])
@pytest.mark.parametrize("key", [-60, -40, 40, 60])
def test_keys_and_queries_of_any_size_give_finite_weights(key, query):
    keys = numpy.array([[[key], [0]]], "float32")
    with numpy.errstate(all="raise", under="ignore"):
        _, weights, backward = attend(
            numpy.full((1, 1), query, "float32"), exponentials(keys), keys, numpy.ones(1, "float32")
        )
        found = backward(numpy.ones((1, 1), "float32"), numpy.ones((1, 2), "float32"))
    assert weights.sum() == pytest.approx(1)
    assert all(numpy.isfinite(array).all() for array in found)


def test_keys_whose_exponential_overflows_have_the_right_weights():
    """exp(2 k) is infinite or 0 in float32; tanh of key and query is 1 or -1."""
    keys = numpy.array([[[60], [-60], [0]]], "float32")
    one = numpy.ones((1, 1), "float32")
    with numpy.errstate(all="raise", under="ignore"):
        _, weights, _ = attend(one, exponentials(keys), keys, one[0])
    scores = numpy.exp([1, -1, numpy.tanh(1)])
    numpy.testing.assert_allclose(weights[0], scores / scores.sum(), rtol=1e-6)


def test_the_order_of_positions_changes_nothing():
    """Permuted keys and values give the same h and gradients, with permuted weights."""
    rng = numpy.random.default_rng(1)
    inputs, order = packed(rng), rng.permutation(L)
    turned = inputs | {name: inputs[name][:, order] for name in ("keys", "values")}
    dh, da = rng.normal(size=(11, H)), rng.normal(size=(11, L))
    h, weights, backward = attention_lstm(**inputs)
    h_turned, weights_turned, backward_turned = attention_lstm(**turned)
    numpy.testing.assert_allclose(h_turned, h, rtol=0, atol=1e-13)
    numpy.testing.assert_allclose(weights_turned, weights[:, order], rtol=0, atol=1e-13)
    *shared, dkeys, dvalues = backward(dh, da)
    *shared_turned, dkeys_turned, dvalues_turned = backward_turned(dh, da[:, order])
    for one, other in zip(shared, shared_turned, strict=True):
        numpy.testing.assert_allclose(other, one, rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(dkeys_turned, dkeys[:, order], rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(dvalues_turned, dvalues[:, order], rtol=0, atol=1e-12)


@pytest.mark.gradcheck
def test_one_position_is_the_lstm_with_that_context_as_input():
    rng = numpy.random.default_rng(2)
    inputs = packed(rng, positions=1)
    dh = rng.normal(size=(11, H))
    h, weights, backward = attention_lstm(**inputs)
    assert (weights == 1).all()
    caption = numpy.concatenate([numpy.arange(size) for size in BATCH_SIZES])
    zx = inputs["zx"][:, : 4 * H] + (inputs["values"][:, 0] @ inputs["WcU"][:A])[caption]
    expected, lstm_backward = lstm(zx, inputs["h0"], inputs["c0"], inputs["WcU"][A:], BATCH_SIZES)
    numpy.testing.assert_allclose(h, expected, rtol=0, atol=1e-13)
    dzx, dh0, dc0, dWcU, dWq, dv, dkeys, dvalues = backward(dh, numpy.ones((11, 1)))
    wanted = lstm_backward(dh)
    for found, want in zip((dzx[:, : 4 * H], dh0, dc0, dWcU[A:]), wanted, strict=True):
        numpy.testing.assert_allclose(found, want, rtol=0, atol=1e-12)
    assert not any(abs(array).max() > 1e-15 for array in (dzx[:, 4 * H :], dWq, dv, dkeys)), (
        "nothing to choose"
    )
    context = numpy.zeros((4, 4 * H))
    numpy.add.at(context, caption, wanted[0])
    numpy.testing.assert_allclose(dvalues[:, 0], context @ inputs["WcU"][:A].T, atol=1e-12)


@pytest.mark.gradcheck
def test_equal_to_pytorch():
    """Outputs and all gradients agree with PyTorch's own differentiation in float64, to 1e-10."""
    torch = pytest.importorskip("torch")
    rng = numpy.random.default_rng(3)
    inputs = packed(rng)
    dh, da = rng.normal(size=(11, H)), rng.normal(size=(11, L))
    h, weights, backward = attention_lstm(**inputs)
    t = {k: torch.tensor(x, requires_grad=True) for k, x in inputs.items() if k != "batch_sizes"}
    state, c, start, hs, all_weights = t["h0"], t["c0"], 0, [], []
    for size in BATCH_SIZES:
        state, c = state[:size], c[:size]
        rows = slice(start, start + size)
        query = t["zx"][rows, 4 * H :] + state @ t["Wq"]
        a = torch.softmax(torch.tanh(t["keys"][:size] + query[:, None]) @ t["v"], dim=1)
        context = torch.einsum("nl,nla->na", a, t["values"][:size])
        z = t["zx"][rows, : 4 * H] + torch.cat([context, state], 1) @ t["WcU"]
        i, j, f, o = z.chunk(4, dim=1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
        state = torch.sigmoid(o) * torch.tanh(c)
        hs.append(state)
        all_weights.append(a)
        start += size
    loss = (torch.cat(hs) * torch.tensor(dh)).sum()
    loss = loss + (torch.cat(all_weights) * torch.tensor(da)).sum()
    loss.backward()
    numpy.testing.assert_allclose(h, torch.cat(hs).detach(), rtol=0, atol=1e-10)
    numpy.testing.assert_allclose(weights, torch.cat(all_weights).detach(), rtol=0, atol=1e-10)
    names = "zx", "h0", "c0", "WcU", "Wq", "v", "keys", "values"
    for name, gradient in zip(names, backward(dh, da), strict=True):
        numpy.testing.assert_allclose(gradient, t[name].grad, rtol=0, atol=1e-10, err_msg=name)


def test_sequences_are_independent():
    inputs = packed(numpy.random.default_rng(4))
    before, _, _ = attention_lstm(**inputs)
    inputs["keys"][1], inputs["values"][1] = 7, 7
    after, _, _ = attention_lstm(**inputs)
    starts = numpy.cumsum([0, *BATCH_SIZES[:-1]])
    mine = [s + 1 for s, size in zip(starts, BATCH_SIZES, strict=True) if size > 1]
    assert (before != after).any(axis=1).nonzero()[0].tolist() == mine


def test_gradients_of_values_can_be_left_out():
    inputs = packed(numpy.random.default_rng(5))
    dh, da = numpy.ones((11, H)), numpy.zeros((11, L))
    with_values = attention_lstm(**inputs)[2](dh, da)
    without = attention_lstm(**inputs)[2](dh, da, need_dvalues=False)
    assert without[-1] is None
    assert all((a == b).all() for a, b in zip(with_values[:-1], without[:-1], strict=True))


def test_memory_does_not_grow_with_words_times_positions_times_width():
    """Twice the steps with 100 positions of width 64: what is kept grows by words x (K + L + ...)
    numbers, a small part of the words x L x K of all activations."""
    rng = numpy.random.default_rng(6)
    positions, width, batch = 100, 64, 8

    def kept(steps):
        inputs = {
            "zx": rng.normal(size=(steps * batch, 4 * H + width)),
            "h0": rng.normal(size=(batch, H)),
            "c0": rng.normal(size=(batch, H)),
            "WcU": rng.normal(size=(A + H, 4 * H)),
            "Wq": rng.normal(size=(H, width)),
            "v": rng.normal(size=width),
            "keys": rng.normal(size=(batch, positions, width)),
            "values": rng.normal(size=(batch, positions, A)),
        }
        tracemalloc.start()
        result = attention_lstm(**inputs, batch_sizes=[batch] * steps)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert result
        return size

    growth = (kept(40) - kept(20)) / (20 * batch * 8)  # float64 numbers for each word
    assert growth < 5 * (width + positions + 16 * H) < positions * width / 5
