"""The last layer and the loss. Chapter 7 of the walkthrough."""

from numpy import ndarray


def project_cross_entropy(
    x: ndarray, Wb: ndarray, targets: ndarray, weights: ndarray, divisor: float
):
    """The loss of R words: with logits a_r = x_r W + b, for x (R, I) and Wb (I + 1, V),

        L = sum over r of weights_r / divisor * (log sum_v exp(a_rv) - a_(r, target_r))

    targets: (R,) integers in [0, V); weights: (R,) numbers. Returns L and
    backward(dL) -> dx (R, I), dWb (I + 1, V), dL a number (the gradient from above).

    Shift each row by its greatest logit first: exp must not overflow. The gradient of the logits is

        da_rv = dL weights_r / divisor * (softmax(a_r)_v - [v = target_r]).

    The rest is the dense layer's way back.
    """
    raise NotImplementedError
