"""The last layer and the loss in one: projection to the vocabulary, softmax, cross-entropy."""

from collections.abc import Callable

from minicap.backend import Array, array_module

BLOCK = 32  # rows whose logits are worked on while they are still in the cache


def project_cross_entropy(
    x: Array,
    Wb: Array,
    targets: Array,
    weights: Array | None,
    divisor: float,
    hits: Array | None = None,
) -> tuple[Array, Callable]:
    """sum over r of weights[r] * -log softmax(x[r] W + b)[targets[r]], divided by `divisor`.

    x: (R, I), one row for each real word, so that padding has no row; Wb: (I + 1, V), bias last;
    targets: (R,) integers in [0, V); weights: (R,), or None for 1; hits: None, or (R,) booleans
    that are filled in with whether the target was the likeliest word.
    Returns the loss (0-d) and backward(dloss=1, out=None) -> dx (R, I), dWb (I + 1, V).

    log-sum-exp is shifted by each row's greatest logit, so that nothing overflows. The softmax
    e / s is never formed: its rows are needed in two products only, and there it is cheaper to
    divide the rows of the small matrix by s than those of the one that is as wide as the
    vocabulary.
    """
    xp = array_module(x)
    rows = xp.arange(x.shape[0])
    dtype = xp.result_type(x, Wb)
    x1 = xp.ones((x.shape[0], Wb.shape[0]), dtype=dtype)  # the bias rides as a column of ones
    x1[:, :-1] = x
    e = x1 @ Wb  # 1: the logits, all in one product
    ones = xp.ones(Wb.shape[1], dtype=dtype)
    s = xp.empty(x.shape[0], dtype=dtype)
    loss_per_row = xp.empty(x.shape[0], dtype=dtype)
    for start in range(0, x.shape[0], BLOCK):
        block = slice(start, start + BLOCK)
        logits = e[block]
        top = logits.real.max(axis=1)
        target_logits = logits[xp.arange(logits.shape[0]), targets[block]]
        if hits is not None:
            hits[block] = target_logits.real == top
        logits -= top[:, None]
        xp.exp(logits, out=logits)  # 2: e, in the place of the logits
        s[block] = logits @ ones  # 3: as a product the sum takes half the time
        loss_per_row[block] = xp.log(s[block]) + top - target_logits  # 4
    scale = 1 / divisor if weights is None else weights / divisor
    loss = (loss_per_row * scale).sum()  # 5

    def backward(dloss: float = 1.0, out: Array | None = None) -> tuple[Array, Array]:
        dWb = xp.empty_like(Wb) if out is None else out
        # dloss / dlogits is (e / s - 1 at the target) * scale: from 5, 4, 3 and 2. Held as
        # (e - s at the target), in the place of e, times the column scale / s.
        e[rows, targets] -= s
        column = (scale * dloss / s)[:, None]
        xp.matmul((x1 * column).T, e, out=dWb)  # from 1
        dx = (e @ Wb[:-1].T) * column  # from 1
        return dx, dWb

    return loss, backward
