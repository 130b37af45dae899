"""The LSTM (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

The cell is that of TensorFlow's LSTMCell:

    z = x W + b + h U, which splits into z_i, z_j, z_f, z_o
    i = sigmoid(z_i)   j = tanh(z_j)   f = sigmoid(z_f + 1)   o = sigmoid(z_o)
    c' = f c + i j
    h' = o tanh(c')

i, f and o are the input, forget and output gates, and j holds the candidate values. The 1 that is
added to z_f is the forget bias: it keeps the forget gate open in an untrained cell (Jozefowicz et
al. 2015, "An empirical exploration of recurrent network architectures").
"""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy

from minicap.backend import Allocate, Array, array_module, fused, to_device
from minicap.nn.once import once

FORGET_BIAS = 1.0


@functools.cache
def gate_constants(H: int, dtype: str, xp: ModuleType) -> tuple[Array, Array]:
    """Make the constants of the gates' activation, scale * tanh(scale * (z + shift)) + 1 - scale.

    One call of tanh serves all four gates, and nothing overflows: sigmoid(z) = tanh(z / 2) / 2 +
    1 / 2, so the scale is 1 / 2 for i, f and o, and 1 for j. The shift is the forget bias.

    Args:
        H: hidden size.
        dtype: data type, as a character code.
        xp: array library.

    Returns:
        scale (4 H,) and shift (4 H,). They are cached.
    """
    scale, shift = numpy.repeat([[0.5, 1, 0.5, 0.5], [0, 0, FORGET_BIAS, 0]], H, axis=1)
    return to_device(scale.astype(dtype), xp), to_device(shift.astype(dtype), xp)


def split_gates(a: Array) -> tuple[Array, Array, Array, Array]:
    """Split an array (N, 4 H) into its columns for i, j, f and o: four views (N, H)."""
    H = a.shape[1] // 4
    return a[:, :H], a[:, H : 2 * H], a[:, 2 * H : 3 * H], a[:, 3 * H :]


@fused
def gate_activations(xp: ModuleType, z: Array, scale: Array, shift: Array, gates: Array) -> None:
    """Fill in the gates, scale * tanh(scale * (z + shift)) + 1 - scale.

    Args:
        xp: array library; `fused` supplies it.
        z: (N, 4 H) pre-activations.
        scale: (4 H,) from `gate_constants`.
        shift: (4 H,) from `gate_constants`.
        gates: (N, 4 H) the array to fill in; it may be z.
    """
    xp.add(z, shift, out=gates)
    gates *= scale
    xp.tanh(gates, out=gates)
    gates *= scale
    gates += 1 - scale  # 1


@fused
def gate_activations_backward(xp: ModuleType, dz: Array, scale: Array, gates: Array) -> None:
    """Turn the gradient of the gates, which dz holds, into that of z, in place.

    Args:
        xp: array library; `fused` supplies it.
        dz: (N, 4 H) dL/dgates on entry, dL/dz on return.
        scale: (4 H,) from `gate_constants`.
        gates: (N, 4 H) from `gate_activations`.
    """
    # The slope is (1 - g) g for a sigmoid g and (1 - g) (1 + g) for a tanh g.
    dz *= (1 - gates) * (gates + (2 * scale - 1))  # from 1


@fused
def cell(
    xp: ModuleType, c: Array, i: Array, j: Array, f: Array, o: Array
) -> tuple[Array, Array, Array]:
    """Compute the next cell state, its tanh and the next hidden state.

    Args:
        xp: array library; `fused` supplies it.
        c: (N, H) cell state.
        i: (N, H) input gate.
        j: (N, H) candidate values.
        f: (N, H) forget gate.
        o: (N, H) output gate.

    Returns:
        c', tanh(c') and h', each (N, H).
    """
    c_next = f * c + i * j  # 2
    tanh_c = xp.tanh(c_next)  # 3
    return c_next, tanh_c, o * tanh_c  # 4


@fused
def cell_backward(xp: ModuleType, *arrays: Array) -> Array:
    """Compute the backward pass of `cell`.

    Args:
        xp: array library; `fused` supplies it.
        *arrays: dh, dc, c, tanh_c, i, j, f, o, di, dj, df, do, each (N, H). dh and dc are the
            upstream gradients of h' and c'; tanh_c is tanh(c'); di, dj, df and do are filled in.

    Returns:
        The gradient of c (N, H).
    """
    dh, dc, c, tanh_c, i, j, f, o, di, dj, df, do = arrays
    # dc is the gradient from step t + 1 only; the path through h' is added here.
    dc = dc + dh * o * (1 - tanh_c * tanh_c)  # from 4 and 3
    xp.multiply(dc, j, out=di)  # from 2
    xp.multiply(dc, i, out=dj)  # from 2
    xp.multiply(dc, c, out=df)  # from 2
    xp.multiply(dh, tanh_c, out=do)  # from 4
    return dc * f  # from 2


def lstm_step(
    z: Array, c: Array, out: Array | None = None
) -> tuple[Array, Array, Callable[..., tuple[Array, Array]]]:
    """Compute one step of the LSTM from its pre-activations.

    Args:
        z: (N, 4 H) pre-activations x W + b + h U in the order i, j, f, o.
        c: (N, H) cell state.
        out: (N, 4 H) array that keeps the gates for the backward pass; it may be z.

    Returns:
        h' (N, H), c' (N, H) and ``backward(dh, dc, out=None)``, which returns dz (N, 4 H) and the
        gradient of c (N, H). ``dc`` is the gradient of c' from the next step only: ``backward``
        adds the path through h'.
    """
    xp = array_module(z)
    scale, shift = gate_constants(c.shape[1], z.real.dtype.char, xp)
    gates = xp.empty_like(z) if out is None else out
    gate_activations(z, scale, shift, gates)  # 1
    i, j, f, o = split_gates(gates)
    c_next, tanh_c, h_next = cell(c, i, j, f, o)  # 2 to 4

    @once
    def backward(dh: Array, dc: Array, out: Array | None = None) -> tuple[Array, Array]:
        dz = xp.empty_like(z) if out is None else out
        dc = cell_backward(dh, dc, c, tanh_c, i, j, f, o, *split_gates(dz))  # from 4 to 2
        gate_activations_backward(dz, scale, gates)  # from 1
        return dz, dc

    return h_next, c_next, backward


def multiply_few_rows(x: Array, W: Array, out: Array) -> Array:
    """Compute the matrix product x W, faster than BLAS if x has few rows.

    OpenBLAS first copies W into another layout. For few rows the copy takes longer than the
    product. It skips the copy below a million multiplications, so we split the columns of W into
    blocks of that size.

    Args:
        x: (N, I).
        W: (I, O).
        out: (N, O) array for the result.

    Returns:
        out.
    """
    xp = array_module(x)
    rows, (inputs, outputs) = len(x), W.shape
    if xp is numpy and 2 < rows <= 12:
        for splits in (2, 3, 4, 6, 12):
            if outputs % splits == 0 and rows * W.size / splits <= 1e6:
                columns = W.reshape(inputs, splits, -1).swapaxes(0, 1)
                xp.matmul(x, columns, out=out.reshape(rows, splits, -1).swapaxes(0, 1))
                return out
    return xp.matmul(x, W, out=out)


def lstm(
    zx: Array,
    h0: Array,
    c0: Array,
    U: Array,
    batch_sizes: Sequence[int],
    allocate: Allocate | None = None,
) -> tuple[Array, Callable[..., tuple[Array, Array, Array, Array]]]:
    """Run the LSTM over packed sequences.

    Packed means: N sequences, longest first, are laid out step by step. ``batch_sizes[t]`` of them
    have a step t, and their rows follow those of step t - 1: R = sum(batch_sizes) rows in all.
    A finished sequence leaves the batch, so padding is never computed.

    The backward pass is backpropagation through time.

    Args:
        zx: (R, 4 H) projected inputs x W + b, in the order i, j, f, o.
        h0: (N, H) initial hidden states.
        c0: (N, H) initial cell states.
        U: (H, 4 H) recurrent weights.
        batch_sizes: number of sequences at each step, N first, never increasing.
        allocate: allocates the large arrays (`minicap.nn.workspace.Workspace.allocate`).

    Returns:
        h (R, H), packed like zx, and ``backward(dh, out=None)``, which returns dzx (R, 4 H),
        dh0 (N, H), dc0 (N, H) and dU (H, 4 H).

    Example:
        >>> # Two sequences of lengths 3 and 1: rows are a1 b1 a2 a3.
        >>> h, backward = lstm(zx, h0, c0, U, [2, 1, 1])
        >>> dzx, dh0, dc0, dU = backward(dh)
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
    def backward(dh: Array, out: Array | None = None) -> tuple[Array, Array, Array, Array]:
        dz = allocate(zx.shape, dtype)
        # The gradients that step t + 1 passes to step t. The rows of sequences that end at step t
        # are still zero.
        carry_h, carry_c = xp.zeros_like(h0), xp.zeros_like(c0)
        UT = xp.ascontiguousarray(U.T)  # copied once, which makes the product of each step faster
        for rows, step_backward in reversed(steps):
            size = rows.stop - rows.start
            dh_t = dh[rows] + carry_h[:size]
            dz_t, carry_c[:size] = step_backward(dh_t, carry_c[:size], out=dz[rows])  # from 2
            multiply_few_rows(dz_t, UT, carry_h[:size])  # from 1
        # The h before each row's step: h0 at the first step, then h of the same sequence one step
        # earlier, batch_sizes[t - 1] rows above.
        back = numpy.array(batch_sizes[:-1], dtype=int)
        earlier = numpy.arange(batch_sizes[0], zx.shape[0]) - numpy.repeat(back, batch_sizes[1:])
        h_before = xp.concatenate([h0, h_after[to_device(earlier, xp)]])
        dU = xp.matmul(h_before.T, dz, out=out)  # from 1, for all steps at once
        return dz, carry_h, carry_c, dU

    return h_after, backward
