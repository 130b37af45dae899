"""The LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

As TensorFlow's LSTMCell: the gates lie in the order i, j, f, o (input gate, new values, forget
gate, output gate) and 1 is added to the forget gate's input, so that an untrained cell remembers
(Jozefowicz et al. 2015).
"""

from collections.abc import Callable, Sequence

from minicap.backend import Array, array_module

FORGET_BIAS = 1.0


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written with tanh: no overflow, keeps dtype, works on complex numbers."""
    return array_module(x).tanh(x / 2) / 2 + 0.5


def lstm_step(z: Array, c: Array) -> tuple[Array, Array, Callable]:
    """One step of the cell, from the gates' inputs.

    z: (N, 4 H), the gates' inputs x W + b + h U in the order i, j, f, o; c: (N, H), the cell.
    Returns the new h (N, H), the new c (N, H) and
    backward(dh, dc, out=None) -> dz (N, 4 H), the old cell's dc (N, H).
    """
    xp = array_module(z)
    H = c.shape[1]
    i = sigmoid(z[:, :H])  # 1
    j = xp.tanh(z[:, H : 2 * H])  # 2
    f = sigmoid(z[:, 2 * H : 3 * H] + FORGET_BIAS)  # 3
    o = sigmoid(z[:, 3 * H :])  # 4
    c_next = f * c + i * j  # 5
    t = xp.tanh(c_next)  # 6
    h_next = o * t  # 7

    def backward(dh: Array, dc: Array, out: Array | None = None) -> tuple[Array, Array]:
        dz = xp.empty_like(z) if out is None else out
        dc = dc + dh * o * (1 - t * t)  # from 7 and 6; dc itself comes from the next step
        dz[:, :H] = dc * j * i * (1 - i)  # from 5 and 1
        dz[:, H : 2 * H] = dc * i * (1 - j * j)  # from 5 and 2
        dz[:, 2 * H : 3 * H] = dc * c * f * (1 - f)  # from 5 and 3
        dz[:, 3 * H :] = dh * t * o * (1 - o)  # from 7 and 4
        return dz, dc * f  # from 5

    return h_next, c_next, backward


def lstm(zx: Array, h0: Array, c0: Array, U: Array, sizes: Sequence[int]) -> tuple[Array, Callable]:
    """The cell along whole sequences that are packed.

    Sequences are sorted, longest first, and laid out step by step: sizes[t] of them are still
    going at step t, and their rows follow those of step t - 1, R = sum(sizes) rows in all. A
    finished sequence has left the batch, so padding costs nothing.
    zx: (R, 4 H), the projected inputs x W + b; h0, c0: (N, H), N = sizes[0], in the sequences'
    order; U: (H, 4 H).
    Returns h (R, H) and backward(dh, out=None) -> dzx (R, 4 H), dh0, dc0 (N, H), dU (H, 4 H).
    """
    xp = array_module(zx)
    h_before = xp.empty((zx.shape[0], h0.shape[1]), dtype=xp.result_type(zx, h0, c0, U))
    h_after = xp.empty_like(h_before)
    h, c, steps, start = h0, c0, [], 0
    for size in sizes:
        rows = slice(start, start + size)
        h, c = h[:size], c[:size]
        h_before[rows] = h
        h, c, step_backward = lstm_step(zx[rows] + h @ U, c)  # 1
        h_after[rows] = h
        steps.append((rows, step_backward))
        start += size

    def backward(dh: Array, out: Array | None = None):
        dz = xp.empty_like(zx)
        # The gradient that flows from one step to the step before. Rows of sequences that have
        # ended later in time are still zero when the way back reaches their last word.
        carry_h, carry_c = xp.zeros_like(h0), xp.zeros_like(c0)
        UT = xp.ascontiguousarray(U.T)  # copied once: each step's product is then quicker
        for rows, step_backward in reversed(steps):
            size = rows.stop - rows.start
            dh_t = dh[rows] + carry_h[:size]
            dz_t, carry_c[:size] = step_backward(dh_t, carry_c[:size], out=dz[rows])
            carry_h[:size] = dz_t @ UT  # from 1
        dU = xp.matmul(h_before.T, dz, out=out)  # from 1, for all steps at once
        return dz, carry_h, carry_c, dU

    return h_after, backward
