"""An LSTM that looks at an image before each word (Xu et al. 2015, "Show, attend and tell")."""

from collections.abc import Callable, Sequence

from minicap.backend import Allocate, Array, array_module
from minicap.nn.attention import attend
from minicap.nn.dense import affine
from minicap.nn.lstm import lstm_step, multiply_few_rows
from minicap.nn.once import once


def attention_lstm(
    zx: Array,
    h0: Array,
    c0: Array,
    UWc: Array,
    Wq: Array,
    v: Array,
    *,
    keys: Array,
    values: Array,
    batch_sizes: Sequence[int],
    allocate: Allocate | None = None,
) -> tuple[Array, Array, Callable[..., tuple[Array, ...]]]:
    """Run the LSTM over packed sequences, with attention over L positions at every step.

    At each step, the hidden state makes a query; `attend` returns a context; and the context is one
    more input of the LSTM:

        q = h Wq + bq
        z = zx + [h, context] [U; Wc]

    The sequences are packed as for `minicap.nn.lstm.lstm`.

    Args:
        zx: (R, 4 H) projected inputs x W + b, in the order i, j, f, o.
        h0: (N, H) initial hidden states.
        c0: (N, H) initial cell states.
        UWc: (H + A, 4 H) recurrent weights U and, below them, the weights Wc of the context.
        Wq: (H + 1, K) weights of the query and, as the last row, its bias.
        v: (K,) weights of the scores.
        keys: (N, L, K) for each sequence.
        values: (N, L, A) for each sequence.
        batch_sizes: number of sequences at each step, N first, never increasing.
        allocate: allocates the large arrays (`minicap.nn.workspace.Workspace.allocate`).

    Returns:
        h (R, H), the attention weights (R, L), and ``backward(dh, dweights, need_dvalues=True)``,
        which returns dzx (R, 4 H), dh0 (N, H), dc0 (N, H), dUWc, dWq, dv, dkeys (N, L, K), and
        dvalues (N, L, A) or None.
    """
    xp = array_module(zx)
    allocate = allocate or xp.empty
    dtype = xp.result_type(zx, h0, c0, UWc, Wq, v, keys, values)
    R, H, A = len(zx), h0.shape[1], values.shape[2]
    gates = allocate(zx.shape, dtype)
    inputs = allocate((R, H + A), dtype)  # [h, context] of each step
    h_after = allocate((R, H), dtype)
    weights = allocate((R, keys.shape[1]), dtype)
    h, c, steps, start = h0, c0, [], 0
    for size in batch_sizes:
        rows = slice(start, start + size)
        inputs[rows, :H] = h[:size]
        query = affine(h[:size], Wq)  # 1
        context, weights[rows], look_backward = attend(query, keys[:size], values[:size], v)  # 2
        inputs[rows, H:] = context
        z = multiply_few_rows(inputs[rows], UWc, gates[rows])
        z += zx[rows]  # 3
        h, c, step_backward = lstm_step(z, c[:size], out=z)  # 4
        h_after[rows] = h
        steps.append((rows, look_backward, step_backward))
        start += size

    @once
    def backward(dh: Array, dweights: Array, need_dvalues: bool = True) -> tuple[Array, ...]:
        dz = allocate(zx.shape, dtype)
        dquery = allocate((R, len(v)), dtype)
        dkeys, dv = xp.zeros_like(keys, dtype=dtype), xp.zeros_like(v, dtype=dtype)
        dvalues = xp.zeros_like(values, dtype=dtype) if need_dvalues else None
        carry_h, carry_c = xp.zeros_like(h0), xp.zeros_like(c0)
        UWcT, WqT = xp.ascontiguousarray(UWc.T), xp.ascontiguousarray(Wq[:-1].T)
        for rows, look_backward, step_backward in reversed(steps):
            size = rows.stop - rows.start
            dh_t = dh[rows] + carry_h[:size]
            dz_t, carry_c[:size] = step_backward(dh_t, carry_c[:size], out=dz[rows])  # from 4
            dinputs = multiply_few_rows(dz_t, UWcT, xp.empty((size, H + A), dtype))  # from 3
            dquery[rows], dkeys_t, dvalues_t, dv_t = look_backward(
                dinputs[:, H:], dweights[rows], need_dvalues
            )  # from 2
            dkeys[:size] += dkeys_t
            dv += dv_t
            if dvalues is not None:
                dvalues[:size] += dvalues_t
            carry_h[:size] = dinputs[:, :H] + dquery[rows] @ WqT  # from 3 and 1
        dUWc = inputs.T @ dz  # from 3, for all steps at once
        dWq = xp.empty_like(Wq, dtype=dtype)
        xp.matmul(inputs[:, :H].T, dquery, out=dWq[:-1])  # from 1
        dWq[-1] = dquery.sum(axis=0)  # from 1
        return dz, carry_h, carry_c, dUWc, dWq, dv, dkeys, dvalues

    return h_after, weights, backward
