"""The LSTM along packed sequences. Chapter 6 of the walkthrough."""

from numpy import ndarray


def lstm(zx: ndarray, h0: ndarray, c0: ndarray, U: ndarray, sizes: list[int]):
    """The cell of `lstm_step` along whole sequences, longest first, laid out step by step.

    zx: (R, 4 H), the projected inputs x W + b; h0, c0: (N, H); U: (H, 4 H). sizes[t] sequences
    are still going at step t, the first sizes[t] of them; their rows follow those of step t - 1.
    At step t, z_t = zx_t + h_(t-1) U; then `lstm_step` gives h_t and c_t.

    Returns all h (R, H), laid out as zx is, and
    backward(dh) -> dzx (R, 4 H), dh0 (N, H), dc0 (N, H), dU (H, 4 H).

    dh[rows of step t] is what the loss says of h_t directly. To it comes dz_(t+1) U^T, through
    the next step; and the next step's gradient of its old cell is this step's dc. dU is the sum
    over all steps of h_(t-1)^T dz_t. A sequence that has ended at step t has nothing to carry.

    `from minicap.nn.lstm import lstm_step` for the step, or take your own.
    """
    raise NotImplementedError
