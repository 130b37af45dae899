"""When to doubt a caption: the photo is unlike the training photos, or its words are improbable."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Doubt:
    """Limits that were calibrated on photos with known captions (`tests/benchmarks/doubt.py`).

    Attributes:
        distance: the largest `distance_of` a photo that is like the training photos.
        log_probability: the smallest mean log-probability, in nats per word, of a caption that is
            not doubtful.
        basis: (F, K) orthonormal columns, the first principal components of the training photos'
            standardised features.
    """

    distance: float
    log_probability: float
    basis: numpy.ndarray

    def distance_of(self, features: numpy.ndarray) -> float:
        """Compute how much of a photo the principal components cannot express.

        Args:
            features: (F,) standardised: each has mean 0 and standard deviation 1 over the training
                photos.

        Returns:
            The root mean square of what is left after a projection onto the basis.
        """
        basis = self.basis.astype(numpy.float32)
        return float(numpy.sqrt(numpy.mean((features - basis @ (features @ basis)) ** 2)))

    def reason(self, features: numpy.ndarray, log_probabilities: Sequence[float]) -> str:
        """Say why a caption is doubtful; "" if it is not.

        Args:
            features: (F,) the photo's standardised features.
            log_probabilities: of each word of the caption.
        """
        if self.distance_of(features) > self.distance:
            return "the photo is unlike those that the model was trained on"
        if numpy.mean(log_probabilities) < self.log_probability:
            return "the model is not sure of these words"
        return ""


def principal_components(features: numpy.ndarray, count: int) -> numpy.ndarray:
    """Compute the directions in which features vary most.

    Args:
        features: (N, F) standardised.
        count: K, how many.

    Returns:
        (F, K) orthonormal columns, float16.
    """
    wide = features.astype(numpy.float64)
    _, vectors = numpy.linalg.eigh(wide.T @ wide)
    return vectors[:, : -count - 1 : -1].astype(numpy.float16)
