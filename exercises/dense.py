"""The dense layer. Chapter 4 of the walkthrough."""

from numpy import ndarray


def dense(x: ndarray, Wb: ndarray, activation=None):
    """y = activation(x W + b), for x (N, I) and Wb (I + 1, O): W above one last row, b.

    activation: None, or a function as `elu` is one: activation(z) -> y, activation_backward.
    Returns y (N, O) and backward(dy) -> dx (N, I), dWb (I + 1, O).

    z_no = sum over i of x_ni W_io, plus b_o, and so, with dz = dL/dz (which is dy where there is
    no activation, and activation_backward(dy) where there is one),

        dW_io = sum over n of x_ni dz_no       db_o = sum over n of dz_no
        dx_ni = sum over o of dz_no W_io

    Each sum is a product of two matrices, or a sum along one axis.
    """
    raise NotImplementedError
