"""The LSTM over packed sequences. Chapter 6 of the walkthrough."""

from numpy import ndarray


def lstm(zx: ndarray, h0: ndarray, c0: ndarray, U: ndarray, batch_sizes: list[int]):
    """Run `lstm_step` over whole sequences, longest first, packed step by step.

    zx: (R, 4 H), the projected inputs x W + b; h0, c0: (N, H); U: (H, 4 H); batch_sizes[t]: the
    number of sequences that have a step t. They are the first batch_sizes[t] of the N sequences,
    and their rows follow those of step t - 1.

    At step t, z_t = zx_t + h_(t-1) U, and `lstm_step` computes h_t and c_t from z_t and c_(t-1).

    Returns h (R, H) of all steps, packed like zx, and backward(dh), which returns dzx (R, 4 H),
    dh0 (N, H), dc0 (N, H) and dU (H, 4 H).

    The rows of dh for step t are the gradient of h_t from the loss alone. Add the gradient from
    step t + 1, dz_(t+1) U^T. The gradient that step t + 1 returns for its old cell state is the dc
    of step t. dU is the sum over all steps of h_(t-1)^T dz_t. A sequence whose last step is t gets
    no gradient from step t + 1.

    Import `lstm_step` from minicap.nn.lstm, or use your own.
    """
    raise NotImplementedError
