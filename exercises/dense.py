"""The dense layer. Chapter 4 of the walkthrough."""

from numpy import ndarray


def dense(x: ndarray, Wb: ndarray, activation=None):
    """Apply a dense layer, y = activation(x W + b).

    x: (N, I); Wb: (I + 1, O), weights W and, as the last row, biases b; activation: None, or a
    function like `elu`: activation(z) returns y and its backward pass.

    Returns y (N, O) and backward(dy), which returns dx (N, I) and dWb (I + 1, O).

    Let z_no = sum over i of x_ni W_io, plus b_o, and dz = dL/dz. Without an activation dz is dy;
    otherwise the backward pass of the activation computes dz from dy. Then

        dW_io = sum over n of x_ni dz_no       db_o = sum over n of dz_no
        dx_ni = sum over o of dz_no W_io

    Each sum is a matrix product or a sum over one axis.
    """
    raise NotImplementedError
