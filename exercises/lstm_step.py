"""One step of the LSTM. Chapters 5 and 6 of the walkthrough."""

from numpy import ndarray


def lstm_step(z: ndarray, c: ndarray):
    """From the gates' inputs z (N, 4 H), cut into z_i, z_j, z_f, z_o, and the cell c (N, H):

        i = sigmoid(z_i)   j = tanh(z_j)   f = sigmoid(z_f + 1)   o = sigmoid(z_o)
        c' = f c + i j     t = tanh(c')    h' = o t

    all element by element. Returns h' (N, H), c' (N, H) and
    backward(dh, dc) -> dz (N, 4 H), and the gradient of the old cell c (N, H).

    dh is dL/dh'. dc is what the *next step* says of c', which is not all: h' depends on c' too.
    So begin with the whole gradient of c', then walk through the lines from the last to the
    first. sigmoid' = sigmoid (1 - sigmoid), tanh' = 1 - tanh^2.
    """
    raise NotImplementedError
