"""The LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

As TensorFlow's LSTMCell: the gates lie in the order i, j, f, o (input gate, new values, forget
gate, output gate) and 1 is added to the forget gate's input, so that an untrained cell remembers
(Jozefowicz et al. 2015).
"""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy

from minicap.backend import Array, array_module, fused, to_device
from minicap.nn.once import once

FORGET_BIAS = 1.0


@functools.cache
def gate_constants(H: int, dtype: str, xp: ModuleType) -> tuple[Array, Array]:
    """scale and shift (4 H,), for which the gates are scale tanh(scale (z + shift)) + 1 - scale.

    j is a tanh, where scale is 1; i, f and o are sigmoids, 1 / (1 + exp(-z)), which is the same
    as tanh(z / 2) / 2 + 1 / 2. So one call serves all four, and nothing can overflow.
    """
    scale, shift = numpy.repeat([[0.5, 1, 0.5, 0.5], [0, 0, FORGET_BIAS, 0]], H, axis=1)
    return to_device(scale.astype(dtype), xp), to_device(shift.astype(dtype), xp)


def split_gates(a: Array) -> tuple[Array, Array, Array, Array]:
    """The parts for i, j, f and o, (N, H) each, of what is (N, 4 H); views."""
    H = a.shape[1] // 4
    return a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]


@fused
def gate_activations(xp: ModuleType, z: Array, scale: Array, shift: Array, gates: Array) -> None:
    """Fill in the gates, scale tanh(scale (z + shift)) + 1 - scale.

    z, gates: (N, 4 H), maybe the same memory; scale, shift: from `gate_constants`.
    """
    xp.add(z, shift, out=gates)
    gates *= scale
    xp.tanh(gates, out=gates)
    gates *= scale
    gates += 1 - scale  # 1


@fused
def gate_activations_backward(xp: ModuleType, dz: Array, scale: Array, gates: Array) -> None:
    """Turn the gates' gradient, which dz holds, into z's. dz, gates: (N, 4 H)."""
    # A sigmoid g has the slope (1 - g) g, a tanh (1 - g) (1 + g).
    dz *= (1 - gates) * (gates + (2 * scale - 1))  # from 1


@fused
def cell(xp: ModuleType, c: Array, i: Array, j: Array, f: Array, o: Array) -> tuple:
    """The new cell, its tanh, and the new h; all (N, H). c: the old cell."""
    c_next = f * c + i * j  # 2
    t = xp.tanh(c_next)  # 3
    return c_next, t, o * t  # 4


@fused
def cell_backward(xp: ModuleType, *arrays: Array) -> Array:
    """The way back of `cell`. arrays: as they are named below, all (N, H).

    dh, dc: the gradients of the new h and of the new cell; di, dj, df, do: are filled in.
    Returns the old cell's gradient (N, H).
    """
    dh, dc, c, t, i, j, f, o, di, dj, df, do = arrays
    dc = dc + dh * o * (1 - t * t)  # from 4 and 3; dc itself comes from the next step
    xp.multiply(dc, j, out=di)  # from 2
    xp.multiply(dc, i, out=dj)  # from 2
    xp.multiply(dc, c, out=df)  # from 2
    xp.multiply(dh, t, out=do)  # from 4
    return dc * f  # from 2


def lstm_step(z: Array, c: Array, out: Array | None = None) -> tuple[Array, Array, Callable]:
    """One step of the cell, from the gates' inputs.

    z: (N, 4 H), the gates' inputs x W + b + h U in the order i, j, f, o; c: (N, H), the cell;
    out: (N, 4 H), where the gates themselves are kept for the way back; may be z.
    Returns the new h (N, H), the new c (N, H) and
    backward(dh, dc, out=None) -> dz (N, 4 H), the old cell's dc (N, H).
    """
    xp = array_module(z)
    scale, shift = gate_constants(c.shape[1], z.real.dtype.char, xp)
    gates = xp.empty_like(z) if out is None else out
    gate_activations(z, scale, shift, gates)  # 1
    i, j, f, o = split_gates(gates)
    c_next, t, h_next = cell(c, i, j, f, o)  # 2 to 4

    @once
    def backward(dh: Array, dc: Array, out: Array | None = None) -> tuple[Array, Array]:
        dz = xp.empty_like(z) if out is None else out
        dc = cell_backward(dh, dc, c, t, i, j, f, o, *split_gates(dz))  # from 4 to 2
        gate_activations_backward(dz, scale, gates)  # from 1
        return dz, dc

    return h_next, c_next, backward


def multiply_few_rows(x: Array, W: Array, out: Array) -> Array:
    """x W, for small numbers of rows. x: (N, I); W: (I, O); out: (N, O).

    OpenBLAS copies W into another order before it multiplies, which takes longer than the
    product itself if x has few rows. It does without where there are no more than a million
    multiplications: so the columns of W are dealt with in so many parts.
    """
    xp = array_module(x)
    rows, (inputs, outputs) = len(x), W.shape
    if xp is numpy and 2 < rows <= 12:
        for parts in (2, 3, 4, 6, 12):
            if outputs % parts == 0 and rows * W.size / parts <= 1e6:
                columns = W.reshape(inputs, parts, -1).swapaxes(0, 1)
                xp.matmul(x, columns, out=out.reshape(rows, parts, -1).swapaxes(0, 1))
                return out
    return xp.matmul(x, W, out=out)


def lstm(
    zx: Array,
    h0: Array,
    c0: Array,
    U: Array,
    batch_sizes: Sequence[int],
    allocate: Callable | None = None,
) -> tuple[Array, Callable]:
    """The cell along whole sequences that are packed.

    Sequences are sorted, longest first, and laid out step by step: batch_sizes[t] of them are still
    going at step t, and their rows follow those of step t - 1, R = sum(batch_sizes) rows in all. A
    finished sequence has left the batch, so padding costs nothing.
    zx: (R, 4 H), the projected inputs x W + b; h0, c0: (N, H), N = batch_sizes[0], in the sequences'
    order; U: (H, 4 H); allocate: makes the large arrays (minicap.nn.workspace).
    Returns h (R, H) and backward(dh, out=None) -> dzx (R, 4 H), dh0, dc0 (N, H), dU (H, 4 H).
    """
    xp = array_module(zx)
    allocate = allocate or xp.empty
    dtype = xp.result_type(zx, h0, c0, U)
    gates = allocate(zx.shape, dtype)
    h_after = allocate((zx.shape[0], h0.shape[1]), dtype)
    h, c, steps, start = h0, c0, [], 0
    for size in batch_sizes:
        rows = slice(start, start + size)
        z = multiply_few_rows(h[:size], U, gates[rows])
        z += zx[rows]  # 1
        h, c, step_backward = lstm_step(z, c[:size], out=z)  # 2
        h_after[rows] = h
        steps.append((rows, step_backward))
        start += size

    @once
    def backward(dh: Array, out: Array | None = None):
        dz = allocate(zx.shape, dtype)
        # The gradient that flows from one step to the step before. Rows of sequences that have
        # ended later in time are still zero when the way back reaches their last word.
        carry_h, carry_c = xp.zeros_like(h0), xp.zeros_like(c0)
        UT = xp.ascontiguousarray(U.T)  # copied once: each step's product is then quicker
        for rows, step_backward in reversed(steps):
            size = rows.stop - rows.start
            dh_t = dh[rows] + carry_h[:size]
            dz_t, carry_c[:size] = step_backward(dh_t, carry_c[:size], out=dz[rows])  # from 2
            multiply_few_rows(dz_t, UT, carry_h[:size])  # from 1
        # Each row's h before its step: h0, then what the same sequence had a step earlier.
        back = numpy.array(batch_sizes[:-1], dtype=int)
        earlier = numpy.arange(batch_sizes[0], zx.shape[0]) - numpy.repeat(back, batch_sizes[1:])
        h_before = xp.concatenate([h0, h_after[to_device(earlier, xp)]])
        dU = xp.matmul(h_before.T, dz, out=out)  # from 1, for all steps at once
        return dz, carry_h, carry_c, dU

    return h_after, backward
