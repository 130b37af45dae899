"""Check the gradients of thinc's layers against central differences in every input.

    python tests/benchmarks/thinc_gradients.py   (needs thinc; docs/related-work.md has the result)

thinc computes in float32, so a correct gradient has an error of about 0.001. The dense layer is the
control: it shows that the method accepts correct gradients.
"""

import numpy
import thinc
from thinc.api import (
    LSTM,
    Linear,
    NumpyOps,
    Ops,
    chain,
    list2padded,
    padded2list,
    set_current_ops,
    with_array,
)

LENGTHS = 4, 3, 1


class PortableOps(NumpyOps):
    """thinc's portable LSTM, for devices without their own implementation."""

    lstm_forward_training = Ops.lstm_forward_training
    lstm_forward_inference = Ops.lstm_forward_inference
    backprop_lstm = Ops.backprop_lstm


def error(model, h: float = 1e-2) -> float:
    """Return the distance of a layer's gradient from central differences, divided by their norm."""
    rng = numpy.random.default_rng(0)
    X = [rng.standard_normal((length, 3)).astype("f") for length in LENGTHS]
    model.initialize(X=X)
    Y, backprop = model(X, is_train=True)
    dY = [rng.standard_normal(y.shape).astype("f") for y in Y]

    def loss(X) -> float:
        Y, _ = model(X, is_train=True)
        return sum(float((y.astype("d") * dy).sum()) for y, dy in zip(Y, dY))

    differences = []
    for k, x in enumerate(X):
        for index in numpy.ndindex(x.shape):
            above, below = [a.copy() for a in X], [a.copy() for a in X]
            above[k][index] += h
            below[k][index] -= h
            differences.append((loss(above) - loss(below)) / (2 * h))
    found = numpy.concatenate([dx.ravel() for dx in backprop(dY)])
    return float(numpy.linalg.norm(found - differences) / numpy.linalg.norm(differences))


def lstm():
    """Make an LSTM of four units for lists of arrays."""
    return chain(list2padded(), LSTM(4, 3, bi=False, depth=1, dropout=0.0), padded2list())


if __name__ == "__main__":
    print(f"thinc {thinc.__version__}, numpy {numpy.__version__}")
    set_current_ops(NumpyOps())
    print(f"dense (control)      {error(with_array(Linear(4, 3))):.4f}")
    print(f"LSTM, NumPy's ops    {error(lstm()):.4f}")
    set_current_ops(PortableOps())
    print(f"LSTM, portable ops   {error(lstm()):.4f}")
