"""An LSTM whose new values are the greater of two (Rennie et al. 2017, section 2).

There the cell takes max(a, b) itself. Here it keeps its tanh, which changes nothing in which of
the two it is: max(tanh a, tanh b) = tanh(max(a, b)). So all but the choice is `lstm_step`.
"""

from collections.abc import Callable

from minicap.backend import Array, array_module
from minicap.nn.lstm import lstm_step


def maxout_step(z: Array, c: Array, out: Array | None = None) -> tuple[Array, Array, Callable]:
    """One step of the cell, as `lstm_step`, from five inputs instead of four.

    z: (N, 5 H), the inputs x W + b + h U in the order i, j, f, o, j2; c: (N, H), the cell;
    out: (N, 5 H), where the gates are kept for the way back; may be z.
    Returns the new h (N, H), the new c (N, H) and
    backward(dh, dc, out=None) -> dz (N, 5 H), the old cell's dc (N, H).
    """
    xp, H = array_module(z), c.shape[1]
    z = xp.add(z, 0, out=out)  # a copy, if it is not to be overwritten
    four, j, j2 = z[:, : 4 * H], z[:, H : 2 * H], z[:, 4 * H :]
    second = j2.real > j.real
    xp.maximum(j, j2, out=j)  # 1
    h_next, c_next, step_backward = lstm_step(four, c, out=four)  # 2

    def backward(dh: Array, dc: Array, out: Array | None = None) -> tuple[Array, Array]:
        dz = xp.empty_like(z) if out is None else out
        dj, dj2 = dz[:, H : 2 * H], dz[:, 4 * H :]
        _, dc = step_backward(dh, dc, out=dz[:, : 4 * H])  # from 2: dj is that of the greater
        xp.multiply(dj, second, out=dj2)  # from 1: j2's, where it was j2;
        dj -= dj2  # from 1: and the rest stays with j
        return dz, dc

    return h_next, c_next, backward
