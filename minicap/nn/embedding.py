"""Looking up rows of a table."""

from collections.abc import Callable

from minicap.backend import Array, add_rows, array_module
from minicap.nn.once import once


def embedding(ids: Array, table: Array) -> tuple[Array, Callable]:
    """y[r] = table[ids[r]].

    ids: (R,) integers in [0, V), which is not looked at: a vocabulary makes no others;
    table: (V, D). Returns y (R, D) and backward(dy, out=None) -> dtable (V, D).
    """
    y = table[ids]  # 1

    @once
    def backward(dy: Array, out: Array | None = None) -> Array:
        dtable = array_module(table).empty_like(table) if out is None else out
        dtable[...] = 0
        add_rows(dtable, ids, dy)  # from 1: a row that is used twice collects both gradients
        return dtable

    return y, backward
