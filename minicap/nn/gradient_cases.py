"""Small inputs for every layer, for gradient checks."""

from types import ModuleType
from typing import Any

import numpy

from minicap.backend import Array, to_device
from minicap.nn.attention import attend, exponentials
from minicap.nn.attention_lstm import attention_lstm
from minicap.nn.cross_entropy import BLOCK, project_cross_entropy
from minicap.nn.dense import dense, elu
from minicap.nn.dropout import draw_mask, dropout
from minicap.nn.embedding import embedding
from minicap.nn.gradient_check import Layer
from minicap.nn.lstm import lstm, lstm_step


def layer_cases(
    rng: numpy.random.Generator, xp: ModuleType = numpy
) -> dict[str, tuple[Layer, dict[str, Array]]]:
    """Make small random inputs for every layer.

    All sizes differ, so that swapped axes raise. In one case W is square, so that W in place of its
    transpose does not raise and only the check can find it.

    Args:
        rng: random number generator; it determines the inputs.
        xp: array library, numpy or cupy.

    Returns:
        For each case its name, the layer and its float64 inputs by name.
    """

    def normal(*shape: int) -> Array:
        return to_device(rng.standard_normal(shape), xp)

    ids = to_device(numpy.array([3, 0, 3, 5, 3, 0]), xp)  # repeated ids; 1, 2 and 4 do not occur
    mask = to_device(draw_mask(rng, (7, 5), 0.4, "float64"), xp)
    batch_sizes = [4, 3, 3, 1]  # sequences of lengths 4, 3, 3 and 1
    rows = BLOCK + 6  # a full block and a partial one
    targets = to_device(rng.integers(0, 9, rows), xp)
    weights = to_device(rng.uniform(0.5, 2, rows), xp)

    def looking(*inputs: Array) -> tuple[Any, ...]:
        *recurrent, keys, values = inputs
        return attention_lstm(*recurrent, keys=keys, values=values, batch_sizes=batch_sizes)

    return {
        "dense": (dense, {"x": normal(6, 4), "Wb": normal(5, 3)}),
        "dense, elu": (lambda x, Wb: dense(x, Wb, elu), {"x": normal(6, 4), "Wb": normal(5, 4)}),
        "dropout": (lambda x: dropout(x, mask), {"x": normal(7, 5)}),
        "embedding": (lambda table: embedding(ids, table), {"table": normal(7, 4)}),
        "lstm_step": (lstm_step, {"z": normal(5, 12), "c": normal(5, 3)}),
        "lstm": (
            lambda zx, h0, c0, U: lstm(zx, h0, c0, U, batch_sizes),
            {"zx": normal(11, 12), "h0": normal(4, 3), "c0": normal(4, 3), "U": normal(3, 12)},
        ),
        "attend": (
            lambda query, keys, values, v: attend(query, exponentials(keys), values, v),
            {
                "query": normal(4, 6),
                "keys": normal(4, 5, 6),
                "values": normal(4, 5, 2),
                "v": normal(6),
            },
        ),
        "attention_lstm": (
            looking,
            {
                "zx": normal(11, 18),
                "h0": normal(4, 3),
                "c0": normal(4, 3),
                "WcU": normal(5, 12),
                "Wq": normal(3, 6),
                "v": normal(6),
                "keys": normal(4, 5, 6),
                "values": normal(4, 5, 2),
            },
        ),
        "project_cross_entropy": (
            lambda x, Wb: project_cross_entropy(x, Wb, targets, weights, 17.0),
            {"x": normal(rows, 4), "Wb": normal(5, 9)},
        ),
    }
