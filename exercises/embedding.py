"""Looking up words. Chapter 4 of the walkthrough."""

from numpy import ndarray


def embedding(ids: ndarray, table: ndarray):
    """y[r] = table[ids[r]], for ids (R,) and table (V, D).

    Returns y (R, D) and backward(dy) -> dtable (V, D):

        dtable_v = sum of dy_r over all r with ids_r = v,

    which is zero for a word v that nobody looked up, and has several terms for one that was
    looked up several times.
    """
    raise NotImplementedError
