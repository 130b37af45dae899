"""Additive attention: a weighted mean of positions, with weights that depend on a query.

Bahdanau et al. 2015, "Neural machine translation by jointly learning to align and translate", and
for captions Xu et al. 2015, "Show, attend and tell", eq. 4 to 6 and 13:

    e_l = v . tanh(k_l + q)      a score for each position l
    a = softmax(e)               the attention weights
    context = sum_l a_l x_l      the weighted mean of the positions

k_l = x_l W is position l's key, and q the query, which depends on the words so far.
"""

from collections.abc import Callable

from minicap.backend import Array, array_module
from minicap.nn.once import once


def attend(
    query: Array, keys: Array, values: Array, v: Array
) -> tuple[Array, Array, Callable[..., tuple[Array, Array, Array | None, Array]]]:
    """Look at the positions of N images, each with its own query.

    The backward pass computes the largest array, (N, L, K), again. So what it keeps for each query
    is K + L numbers, and not L K.

    Args:
        query: (N, K).
        keys: (N, L, K).
        values: (N, L, A) the positions x.
        v: (K,) weights of the scores.

    Returns:
        The context (N, A), the attention weights (N, L), and ``backward(dcontext, dweights,
        need_dvalues=True)``, which returns dquery (N, K), dkeys (N, L, K), dvalues (N, L, A) or
        None, and dv (K,).
    """
    xp = array_module(query)

    def activations() -> Array:
        t = keys + query[:, None]
        return xp.tanh(t, out=t)

    e = activations() @ v  # 1 and 2
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
        t = activations()
        dv = de.ravel() @ t.reshape(-1, t.shape[2])  # from 2
        t *= t
        dkeys = xp.subtract(1, t, out=t)
        dkeys *= v
        dkeys *= de[:, :, None]  # from 2 and 1
        return dkeys.sum(axis=1), dkeys, dvalues, dv

    return context, a, backward
