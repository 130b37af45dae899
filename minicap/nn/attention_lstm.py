"""An LSTM that looks at an image before each word (Xu et al. 2015, "Show, attend and tell")."""

from collections.abc import Callable, Sequence

from minicap.backend import Allocate, Array, array_module
from minicap.nn.attention import attend, exponentials
from minicap.nn.lstm import lstm_step, multiply_few_rows
from minicap.nn.once import once


def attention_lstm(
    zx: Array,
    h0: Array,
    c0: Array,
    WcU: Array,
    Wq: Array,
    v: Array,
    *,
    keys: Array,
    values: Array,
    batch_sizes: Sequence[int],
    allocate: Allocate | None = None,
) -> tuple[Array, Array, Callable[..., tuple[Array, ...]]]:
    """Run the LSTM over packed sequences, with attention over L positions at every step.

    At each step, the hidden state and the input make a query; `attend` returns a context; and the
    context is one more input of the LSTM:

        q = zq + h Wq
        z = zx + [context, h] [Wc; U]

    The sequences are packed as for `minicap.nn.lstm.lstm`.

    Args:
        zx: (R, 4 H + K) projected inputs x W + b: for the gates, in the order i, j, f, o, and, in
            the last K columns, for the query.
        h0: (N, H) initial hidden states.
        c0: (N, H) initial cell states.
        WcU: (A + H, 4 H) weights Wc of the context and, below them, the recurrent weights U.
        Wq: (H, K) weights of the query.
        v: (K,) weights of the scores.
        keys: (N, L, K) for each sequence.
        values: (N, L, A) for each sequence.
        batch_sizes: number of sequences at each step, N first, never increasing.
        allocate: allocates the large arrays (`minicap.nn.workspace.Workspace.allocate`).

    Returns:
        h (R, H), the attention weights (R, L), and ``backward(dh, dweights, need_dvalues=True)``,
        which returns dzx (R, 4 H + K), dh0 (N, H), dc0 (N, H), dWcU, dWq, dv, dkeys (N, L, K), and
        dvalues (N, L, A) or None.
    """
    xp = array_module(zx)
    allocate = allocate or xp.empty
    dtype = xp.result_type(zx, h0, c0, WcU, Wq, v, keys, values)
    R, H, A = len(zx), h0.shape[1], values.shape[2]
    gates = allocate((R, 4 * H), dtype)
    inputs = allocate((R, A + H), dtype)  # [context, h] of each step
    h_after = allocate((R, H), dtype)
    weights = allocate((R, keys.shape[1]), dtype)
    buffer = allocate(keys.shape, dtype)
    exp_keys = exponentials(keys)
    h, c, steps, start = h0, c0, [], 0
    for size in batch_sizes:
        rows = slice(start, start + size)
        inputs[rows, A:] = h[:size]
        query = zx[rows, 4 * H :] + h[:size] @ Wq  # 1
        context, weights[rows], look_backward = attend(
            query, exp_keys[:size], values[:size], v, buffer[:size]
        )  # 2
        inputs[rows, :A] = context
        z = multiply_few_rows(inputs[rows], WcU, gates[rows])
        z += zx[rows, : 4 * H]  # 3
        h, c, step_backward = lstm_step(z, c[:size], out=z)  # 4
        h_after[rows] = h
        steps.append((rows, look_backward, step_backward))
        start += size

    @once
    def backward(dh: Array, dweights: Array, need_dvalues: bool = True) -> tuple[Array, ...]:
        dzx = allocate(zx.shape, dtype)
        dz, dquery = dzx[:, : 4 * H], dzx[:, 4 * H :]
        dkeys, dv = xp.zeros(keys.shape, dtype), xp.zeros(v.shape, dtype)
        dvalues = xp.zeros(values.shape, dtype) if need_dvalues else None
        carry_h, carry_c = xp.zeros_like(h0), xp.zeros_like(c0)
        WcUT, WqT = xp.ascontiguousarray(WcU.T), xp.ascontiguousarray(Wq.T)
        for rows, look_backward, step_backward in reversed(steps):
            size = rows.stop - rows.start
            dh_t = dh[rows] + carry_h[:size]
            dz_t, carry_c[:size] = step_backward(dh_t, carry_c[:size], out=dz[rows])  # from 4
            dinputs = multiply_few_rows(dz_t, WcUT, xp.empty((size, A + H), dtype))  # from 3
            dquery[rows], dkeys_t, dvalues_t, dv_t = look_backward(
                dinputs[:, :A], dweights[rows], need_dvalues
            )  # from 2
            dkeys[:size] += dkeys_t
            dv += dv_t
            if dvalues is not None:
                dvalues[:size] += dvalues_t
            carry_h[:size] = dinputs[:, A:] + dquery[rows] @ WqT  # from 3 and 1
        dWcU = inputs.T @ dz  # from 3, for all steps at once
        dWq = inputs[:, A:].T @ dquery  # from 1
        return dzx, carry_h, carry_c, dWcU, dWq, dv, dkeys, dvalues

    return h_after, weights, backward
