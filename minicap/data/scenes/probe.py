"""A linear probe: how well a linear model predicts a scene's attributes from its features."""

from collections.abc import Sequence

import numpy

from minicap.data.scenes.dataset import shipped_features, shipped_split
from minicap.data.scenes.scene import ATTRIBUTES, Scene


def probe(
    features: numpy.ndarray, scenes: Sequence[Scene], ridge: float = 1.0
) -> dict[str, numpy.ndarray]:
    """Predict each attribute with a linear probe, and compare with the scenes.

    The probe is a ridge regression from the features, divided by their overall standard deviation,
    to one-hot attribute values. It is fitted on the shipped training split. The prediction is the
    value with the largest output.

    Args:
        features: (N, F) of the scenes' images.
        scenes: N scenes.
        ridge: the penalty on squared weights.

    Returns:
        Attribute -> (N,) bool, whether the prediction is correct.
    """
    train = shipped_split("train")
    fitted = shipped_features(train)
    mean = fitted.mean(axis=0, dtype=numpy.float64)
    deviation = numpy.sqrt(fitted.var(axis=0, dtype=numpy.float64).mean())
    x = (fitted - mean) / deviation
    weights = ((features - mean) / deviation) @ numpy.linalg.solve(
        x.T @ x + ridge * numpy.eye(x.shape[1]), x.T
    )
    correct = {}
    for attribute, values in ATTRIBUTES.items():
        train_values, scene_values = (
            numpy.array([values.index(getattr(scene, attribute)) for scene in some])
            for some in (train.values(), scenes)
        )
        one_hot = numpy.eye(len(values))[train_values]
        mean = one_hot.mean(axis=0)
        predicted = (weights @ (one_hot - mean) + mean).argmax(axis=1)
        correct[attribute] = predicted == scene_values
    return correct


def probe_report(correct: dict[str, numpy.ndarray]) -> list[str]:
    """Format accuracies: a line per attribute, with the number of values and chance, and one for all.

    Args:
        correct: from `probe`.
    """
    lines = []
    for attribute, right in correct.items():
        values = len(ATTRIBUTES[attribute])
        lines.append(f"{attribute:10} {right.mean():6.1%}  of {values} ({1 / values:.0%})")
    every = numpy.all([*correct.values()], axis=0)
    return [*lines, f"{'all eight':10} {every.mean():6.1%}"]
