"""One step of the LSTM, and packed sequences."""

import math

import numpy
import pytest

from minicap.nn.lstm import lstm, lstm_step, multiply_few_rows
from tests.checks import assert_central_differences, assert_complex_step

BATCH_SIZES = [4, 3, 3, 1]  # sequences of lengths 4, 3, 3 and 1


def packed(rng, H=3, batch_sizes=BATCH_SIZES):
    """Random inputs of `lstm`: zx, h0, c0, U."""
    shapes = (sum(batch_sizes), 4 * H), (batch_sizes[0], H), (batch_sizes[0], H), (H, 4 * H)
    return [rng.standard_normal(shape) for shape in shapes]


def rows_of(sequence, batch_sizes=BATCH_SIZES):
    """Find the rows of one sequence in the packed layout."""
    starts = numpy.cumsum([0, *batch_sizes[:-1]])
    return [start + sequence for start, n in zip(starts, batch_sizes, strict=True) if n > sequence]


@pytest.mark.gradcheck
def test_complex_step_of_a_step():
    assert_complex_step("lstm_step")


@pytest.mark.gradcheck
def test_complex_step_of_ragged_sequences():
    assert_complex_step("lstm")


@pytest.mark.gradcheck
@pytest.mark.parametrize("case", ["lstm_step", "lstm"])
def test_central_differences(case):
    assert_central_differences(case)


def test_one_step_agrees_with_tensorflows_formula():
    """LSTMCell's documentation, with Python's floats: c' = sigmoid(f + 1) c + sigmoid(i) tanh(j),
    h' = sigmoid(o) tanh(c'), gates in the order i, j, f, o."""
    z, c = numpy.array([[0.3, -0.2, -1.1, 0.8, 0.4, -0.6, 1.2, -0.7]]), numpy.array([[0.5, -1.5]])
    h_next, c_next, _ = lstm_step(z, c)
    for k in range(2):
        i, j, f, o = z[0, k::2]

        def s(x):
            return 1 / (1 + math.exp(-x))

        new_c = s(f + 1) * c[0, k] + s(i) * math.tanh(j)
        assert c_next[0, k] == pytest.approx(new_c, abs=1e-15)
        assert h_next[0, k] == pytest.approx(s(o) * math.tanh(new_c), abs=1e-15)


def test_the_forget_bias_is_1():
    """At pre-activations of 0 the forget gate is sigmoid(1) = 0.731, not 0.5."""
    _, c_next, _ = lstm_step(numpy.zeros((1, 4)), numpy.ones((1, 1)))
    assert c_next[0, 0] == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-14, abs=0)


@pytest.mark.gradcheck
def test_steps_agree_with_the_sequence():
    """Calling `lstm_step` for each sequence and step gives the same h and gradients, to 1e-12."""
    rng = numpy.random.default_rng(0)
    zx, h0, c0, U = packed(rng)
    h_all, backward = lstm(zx, h0, c0, U, BATCH_SIZES)
    dh_all = rng.standard_normal(h_all.shape)
    dzx, dh0, dc0, dU = backward(dh_all)
    dU_by_steps = numpy.zeros_like(U)
    for n in range(4):
        rows = rows_of(n)
        h, c, steps = h0[n : n + 1], c0[n : n + 1], []
        for row in rows:
            before = h
            h, c, step_backward = lstm_step(zx[row : row + 1] + h @ U, c)
            numpy.testing.assert_allclose(h_all[row], h[0], rtol=0, atol=1e-12)
            steps.append((row, before, step_backward))
        dh, dc = numpy.zeros((1, 3)), numpy.zeros((1, 3))
        for row, before, step_backward in reversed(steps):
            dz, dc = step_backward(dh + dh_all[row], dc)
            dh = dz @ U.T
            dU_by_steps += before.T @ dz
            numpy.testing.assert_allclose(dzx[row], dz[0], rtol=0, atol=1e-12)
        numpy.testing.assert_allclose(dh0[n], dh[0], rtol=0, atol=1e-12)
        numpy.testing.assert_allclose(dc0[n], dc[0], rtol=0, atol=1e-12)
    numpy.testing.assert_allclose(dU, dU_by_steps, rtol=0, atol=1e-12)


def test_sequences_are_independent():
    """Changing one sequence's inputs leaves the other sequences' outputs bitwise equal."""
    zx, h0, c0, U = packed(numpy.random.default_rng(0))
    h, _ = lstm(zx, h0, c0, U, BATCH_SIZES)
    zx[rows_of(1)], h0[1], c0[1] = 7, 7, 7
    changed, _ = lstm(zx, h0, c0, U, BATCH_SIZES)
    different = (h != changed).any(axis=1).nonzero()[0].tolist()
    assert different == rows_of(1)


def test_dU_is_stored_in_out():
    zx, h0, c0, U = packed(numpy.random.default_rng(0))
    out = numpy.full_like(U, numpy.nan)
    h, backward = lstm(zx, h0, c0, U, BATCH_SIZES)
    assert backward(numpy.ones_like(h), out=out)[3] is out
    assert numpy.isfinite(out).all()


def test_gates_neither_overflow_nor_change_dtype():
    """Pre-activations of +-1e4 give gates of exactly 0 or 1."""
    z = numpy.array([[1e4, 1e4, -1e4, 1e4], [-1e4, 1e4, 1e4, -1e4]], dtype="float32")
    with numpy.errstate(all="raise"):
        h, c, _ = lstm_step(z, numpy.full((2, 1), 0.5, dtype="float32"))
    assert c.dtype == h.dtype == numpy.float32
    assert c[:, 0].tolist() == [1, 0.5] and h[:, 0].tolist() == [numpy.tanh(numpy.float32(1)), 0]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 12, 13])
@pytest.mark.parametrize("width", [4, 12, 600])
def test_multiply_few_rows_is_a_matrix_product(rows, width):
    """With and without splitting the columns, into a view of a larger array."""
    rng = numpy.random.default_rng(0)
    x, W = rng.standard_normal((rows, 300)), rng.standard_normal((300, width))
    out = numpy.empty((20, width))[2 : 2 + rows]
    assert multiply_few_rows(x, W, out) is out
    numpy.testing.assert_allclose(out, x @ W, rtol=0, atol=1e-12)


def test_the_forward_pass_agrees_with_onnx_runtime():
    """ONNX's LSTM operator on sequences of different lengths, in float32.

    ONNX orders gates as i, o, f, c (its c is our j) and stores weights as (gates, inputs). It has
    one bias for the input and one for the state, and no forget bias, so we add 1 to its bias.
    """
    onnx = pytest.importorskip("onnx", reason="the ONNX oracle needs onnx (extra: cpu)")
    runtime = pytest.importorskip("onnxruntime", reason="the ONNX oracle needs onnxruntime")
    rng = numpy.random.default_rng(0)
    H, E, lengths = 6, 5, numpy.array([4, 3, 3, 1], dtype="int32")
    x = rng.standard_normal((4, 4, E)).astype("float32")  # (steps, sequences, inputs), padded
    h0, c0 = rng.standard_normal((2, 4, H)).astype("float32")
    W, U, b = (rng.standard_normal(s).astype("float32") for s in [(E, 4 * H), (H, 4 * H), 4 * H])

    i, j, f, o = numpy.arange(4 * H).reshape(4, H)
    order = numpy.concatenate([i, o, f, j])
    bias = b.copy()
    bias[f] += 1
    inputs = {
        "X": x,
        "W": W.T[None, order],
        "R": U.T[None, order],
        "B": numpy.concatenate([bias[order], numpy.zeros_like(bias)])[None],
        "lengths": lengths,
        "h0": h0[None],
        "c0": c0[None],
    }
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("LSTM", list(inputs), ["Y"], hidden_size=H)],
        "lstm",
        [onnx.helper.make_tensor_value_info(n, types[n], a.shape) for n, a in inputs.items()],
        [onnx.helper.make_tensor_value_info("Y", types["X"], None)],
    )
    # Versions that ONNX Runtime 1.20 reads.
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[opset])
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (Y,) = session.run(["Y"], inputs)  # (steps, 1, sequences, H)

    active = numpy.arange(4)[:, None] < lengths  # (steps, sequences)
    h, _ = lstm(x[active] @ W + b, h0, c0, U, active.sum(axis=1).tolist())
    assert h.dtype == numpy.float32
    numpy.testing.assert_allclose(h, Y[:, 0][active], rtol=0, atol=1e-6)
