"""Compressed features: coordinates in a subspace, rounded to 16-bit integers.

    features ~ mean + (codes * steps) @ basis

A model that only uses this subspace loses nothing but the rounding.
"""

import numpy

STEPS = 4096  # per standard deviation: codes reach eight deviations in both directions


def compress(array: numpy.ndarray, directions: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Project features orthogonally onto a subspace and round the coordinates to int16.

    The coordinates are the principal components within the subspace. Each is rounded relative to
    its own standard deviation and clipped at eight of them.

    Args:
        array: (P, F) features.
        directions: (F, K) vectors that span the subspace, K <= F and K <= P.

    Returns:
        ``codes`` (P, K) int16, and ``steps`` (K,), ``basis`` (K, F) and ``mean`` (F,) float32.
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
    """Restore the features that `compress` compressed.

    Args:
        codes, steps, basis, mean: as `compress` returns them.

    Returns:
        (P, F) float32.
    """
    return (codes * steps.astype(numpy.float32)) @ basis.astype(numpy.float32) + mean
