"""Additive attention: a weighted mean of positions, with weights that depend on a query.

Bahdanau et al. 2015, "Neural machine translation by jointly learning to align and translate", and
for captions Xu et al. 2015, "Show, attend and tell", eq. 4 to 6 and 13:

    e_l = v . tanh(k_l + q)      a score for each position l
    a = softmax(e)               the attention weights
    context = sum_l a_l x_l      the weighted mean of the positions

k_l = x_l W is position l's key, and q the query, which depends on the words so far.

Nearly all the time would go into tanh, for every pair of a query and a position. But

    tanh(k + q) = 1 - 2 s    with    s = 1 / (1 + exp(2 k) exp(2 q)),

so it is enough to compute an exponential for each key and one for each query. The 1 is the same for
all positions, so it changes no weight and is left out.
"""

from collections.abc import Callable

from minicap.backend import Array, array_module
from minicap.nn.once import once

# A key of +-20 makes the tanh +-1, unless the query is about as large and opposite.
LIMIT = 20.0


def exponentials(x: Array) -> Array:
    """Compute exp(2 x) of keys or queries, for x limited to +-LIMIT.

    Products of two of them then neither overflow nor become NaN in float32.
    """
    xp = array_module(x)
    return xp.exp(2 * xp.maximum(xp.minimum(x, LIMIT), -LIMIT))


def attend(
    query: Array, exp_keys: Array, values: Array, v: Array, buffer: Array | None = None
) -> tuple[Array, Array, Callable[..., tuple[Array, Array, Array | None, Array]]]:
    """Look at the positions of N images, each with its own query.

    The backward pass computes the largest array, s (N, L, K), again. So what it keeps for each
    query is K + L numbers, and not L K.

    Args:
        query: (N, K).
        exp_keys: (N, L, K) the keys' `exponentials`.
        values: (N, L, A) the positions x.
        v: (K,) weights of the scores.
        buffer: (N, L, K) an array to compute in, or None for a new one.

    Returns:
        The context (N, A), the attention weights (N, L), and ``backward(dcontext, dweights,
        need_dvalues=True)``, which returns dquery (N, K), dkeys (N, L, K), the gradient of
        the keys and not of their exponentials, dvalues (N, L, A) or None, and dv (K,).
    """
    xp = array_module(query)

    def compute_s() -> Array:
        s = xp.multiply(exp_keys, exponentials(query)[:, None], out=buffer)
        s += 1
        return xp.divide(1, s, out=s)

    e = compute_s() @ (-2 * v)  # 1 and 2
    e -= e.real.max(axis=1)[:, None]  # only prevents overflow
    a = xp.exp(e, out=e)
    a /= a.sum(axis=1)[:, None]  # 3
    context = (a[:, None] @ values)[:, 0]  # 4

    @once
    def backward(
        dcontext: Array, dweights: Array, need_dvalues: bool = True
    ) -> tuple[Array, Array, Array | None, Array]:
        dvalues = a[:, :, None] * dcontext[:, None] if need_dvalues else None  # from 4
        da = dweights + (values @ dcontext[:, :, None])[:, :, 0]  # from 4
        de = a * (da - (a * da).sum(axis=1)[:, None])  # from 3
        s = compute_s()
        dv = -2 * (de[:, None] @ s).sum(axis=(0, 1))  # from 2
        s -= 0.5  # -tanh / 2
        s *= s
        dkeys = xp.subtract(0.25, s, out=s)  # a quarter of the slope, 1 - tanh^2
        dkeys *= de[:, :, None]
        dkeys *= 4 * v  # from 2 and 1
        return dkeys.sum(axis=1), dkeys, dvalues, dv

    return context, a, backward
