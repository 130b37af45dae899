"""The vocabulary projection and the loss. Chapter 7 of the walkthrough."""

from numpy import ndarray


def project_cross_entropy(
    x: ndarray, Wb: ndarray, targets: ndarray, weights: ndarray, divisor: float
):
    """Project hidden states to the vocabulary and compute the softmax cross-entropy.

    With logits a_r = x_r W + b, for x (R, I) and Wb (I + 1, V),

        L = sum over r of weights_r / divisor * (log sum_v exp(a_rv) - a_(r, target_r))

    targets: (R,) integers in [0, V); weights: (R,). Returns L and backward(dL), which returns
    dx (R, I) and dWb (I + 1, V). dL, the upstream gradient, is a number.

    First subtract each row's largest logit, or exp overflows. The gradient of the logits is

        da_rv = dL weights_r / divisor * (softmax(a_r)_v - [v = target_r])

    The rest is the backward pass of the dense layer.
    """
    raise NotImplementedError
