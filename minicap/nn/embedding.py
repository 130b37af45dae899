"""The embedding layer: select rows of a table."""

from collections.abc import Callable

from minicap.backend import Array, add_rows, array_module
from minicap.nn.once import once


def embedding(ids: Array, table: Array) -> tuple[Array, Callable[..., Array]]:
    """Select rows of a table: y[r] = table[ids[r]].

    Args:
        ids: (R,) integers in [0, V). The range is not checked; a vocabulary yields no other ids.
        table: (V, D) one row per word.

    Returns:
        y (R, D) and ``backward(dy, out=None)``, which returns dtable (V, D). The row of a word that
        occurs several times is the sum of its gradients; the row of a word that does not occur is
        zero.
    """
    y = table[ids]  # 1

    @once
    def backward(dy: Array, out: Array | None = None) -> Array:
        dtable = array_module(table).empty_like(table) if out is None else out
        dtable[...] = 0
        add_rows(dtable, ids, dy)  # from 1: repeated ids add up
        return dtable

    return y, backward
