"""One step of the LSTM. Chapters 5 and 6 of the walkthrough."""

from numpy import ndarray


def lstm_step(z: ndarray, c: ndarray):
    """Compute one step from the pre-activations z (N, 4 H) and the cell state c (N, H).

    With z split into columns z_i, z_j, z_f, z_o, element by element:

        i = sigmoid(z_i)   j = tanh(z_j)   f = sigmoid(z_f + 1)   o = sigmoid(z_o)
        c' = f c + i j     h' = o tanh(c')

    Returns h' (N, H), c' (N, H) and backward(dh, dc), which returns dz (N, 4 H) and the gradient of
    the old cell state c (N, H).

    dh is dL/dh'. dc is the gradient of c' from the *next step* only; c' also reaches the loss
    through h'. So first compute the whole gradient of c', then differentiate the lines from last to
    first. sigmoid' = sigmoid (1 - sigmoid), tanh' = 1 - tanh^2.
    """
    raise NotImplementedError
