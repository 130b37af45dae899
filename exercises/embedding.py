"""The embedding layer. Chapter 4 of the walkthrough."""

from numpy import ndarray


def embedding(ids: ndarray, table: ndarray):
    """Select rows of a table, y[r] = table[ids[r]]. ids: (R,) integers; table: (V, D).

    Returns y (R, D) and backward(dy), which returns dtable (V, D):

        dtable_v = sum of dy_r over all r with ids_r = v

    The sum is zero for a word v that does not occur, and has several terms for one that occurs
    several times.
    """
    raise NotImplementedError
