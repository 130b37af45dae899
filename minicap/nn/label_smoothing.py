"""Label smoothing: a share of each target's probability is spread over all words alike."""

from collections.abc import Callable

from minicap.backend import Array, add_rows, array_module


def label_smoothing(
    x: Array, Wb: Array, targets: Array, weights: Array | None, divisor: float, share: float
) -> tuple[Array, Callable]:
    """What label smoothing (Szegedy et al. 2016, section 7) adds to `project_cross_entropy`, with
    the same arguments: share * (the target's logit - the mean logit), for each row.

    Let q be 1 - share at the target y, and share / V more for every word. The cross-entropy with q
    is -sum_v q_v log p_v = log sum exp a - sum_v q_v a_v, as q sums to 1; and
    sum_v q_v a_v = (1 - share) a_y + share mean(a): so it is (log sum exp a - a_y), the loss as it
    was, + share * (a_y - mean(a)).

    share: in [0, 1]. Returns the term (0-d) and backward(dx, dWb), which adds to both in place.
    The mean of all logits is x1 times the mean column of Wb: no row is as wide as the vocabulary.
    """
    xp = array_module(x)
    x1 = xp.ones((x.shape[0], Wb.shape[0]), dtype=xp.result_type(x, Wb))
    x1[:, :-1] = x
    columns = Wb.T[targets] - Wb.mean(axis=1)  # 1: (R, I + 1)
    scale = share / divisor * (1 if weights is None else weights[:, None])
    loss = (x1 * columns * scale).sum()  # 2: x1 times a column of Wb is a logit

    def backward(dx: Array, dWb: Array) -> None:
        dx += columns[:, :-1] * scale  # from 2
        dcolumns = x1 * scale  # from 2
        add_rows(dWb.T, targets, dcolumns)  # from 1
        dWb -= dcolumns.sum(axis=0)[:, None] / Wb.shape[1]  # from 1: each column's part of the mean

    return loss, backward
