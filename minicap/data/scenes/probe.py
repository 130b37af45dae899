"""What a linear probe reads from the features of drawn scenes."""

from collections.abc import Sequence

import numpy

from minicap.data.scenes.dataset import shipped_features, shipped_split
from minicap.data.scenes.scene import ATTRIBUTES, Scene


def probe(
    asked: numpy.ndarray, scenes: Sequence[Scene], ridge: float = 1.0
) -> dict[str, numpy.ndarray]:
    """Whether a linear probe reads each attribute right from features: (N,) booleans for each.

    Ridge regression from the features, all scaled alike, to one column for each value, fitted on
    the shipped train split; the greatest column wins. asked: (N, F), the features of N `scenes`.
    """
    train = shipped_split("train")
    known = shipped_features(train)
    mean = known.mean(axis=0, dtype=numpy.float64)
    deviation = numpy.sqrt(known.var(axis=0, dtype=numpy.float64).mean())
    x = (known - mean) / deviation
    weights = ((asked - mean) / deviation) @ numpy.linalg.solve(
        x.T @ x + ridge * numpy.eye(x.shape[1]), x.T
    )
    found = {}
    for attribute, values in ATTRIBUTES.items():
        known_values, asked_values = (
            numpy.array([values.index(getattr(scene, attribute)) for scene in some])
            for some in (train.values(), scenes)
        )
        one_hot = numpy.eye(len(values))[known_values]
        mean = one_hot.mean(axis=0)
        guess = (weights @ (one_hot - mean) + mean).argmax(axis=1)
        found[attribute] = guess == asked_values
    return found


def report(attributes: dict[str, numpy.ndarray]) -> list[str]:
    """A line for each attribute, with its accuracy and that of guessing, and one for all."""
    lines = []
    for attribute, correct in attributes.items():
        values = len(ATTRIBUTES[attribute])
        lines.append(f"{attribute:10} {correct.mean():6.1%}  of {values} ({1 / values:.0%})")
    every = numpy.all([*attributes.values()], axis=0)
    return [*lines, f"{'all eight':10} {every.mean():6.1%}"]
