"""Features in few bytes: their coordinates in a subspace, as 16-bit integers.

    features = mean + (codes * steps) @ basis, nearly

A model that looks only into this subspace loses nothing but the rounding.
"""

import numpy

STEPS = 4096  # per standard deviation: codes reach eight deviations to both sides


def compress(array: numpy.ndarray, directions: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Project features orthogonally onto a subspace, and round the coordinates to int16.

    The coordinates are the principal components within the subspace. Each is rounded relative to
    its own standard deviation, and cut beyond eight of them.

    Args:
        array: (P, F) features.
        directions: (F, K) what spans the subspace; K <= F and P.

    Returns:
        codes (P, K) int16, steps (K,), basis (K, F) and mean (F,) float32.
    """
    subspace, _ = numpy.linalg.qr(directions.astype(numpy.float64))
    mean = array.mean(axis=0, dtype=numpy.float64)
    inside = (array - mean) @ subspace
    variances, rotation = numpy.linalg.eigh(inside.T @ inside / len(inside))
    steps = numpy.sqrt(numpy.maximum(variances, 1e-12)) / STEPS
    codes = numpy.clip(numpy.rint(inside @ rotation / steps), -32767, 32767)
    return {
        "codes": codes.astype(numpy.int16),
        "steps": steps.astype(numpy.float32),
        "basis": (subspace @ rotation).T.astype(numpy.float32),
        "mean": mean.astype(numpy.float32),
    }


def decompress(
    codes: numpy.ndarray, steps: numpy.ndarray, basis: numpy.ndarray, mean: numpy.ndarray
) -> numpy.ndarray:
    """Restore features from what `compress` returned: (P, F) float32."""
    return (codes * steps.astype(numpy.float32)) @ basis.astype(numpy.float32) + mean
