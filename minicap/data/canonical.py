"""Canonical correlation analysis: the directions in the features that captions describe."""

import numpy

# Both are relative to variances of about 1, which x and y have.
RIDGE = 3e-4  # added to every variance: directions that hardly vary are noise
ROUNDING = 1e-9  # variances up to this are rounding errors
MOST_WORDS = 1000  # rarer words carry little information and cost memory


def word_counts(ids: numpy.ndarray, image: numpy.ndarray, images: int) -> numpy.ndarray:
    """Count how often the captions of each image use each of the most frequent words.

    Special tokens are counted too: the number of #PAD# and #END# tells how long the captions are.

    Args:
        ids: (C, T) token ids of C captions, padded.
        image: (C,) the image of each caption.
        images: P, the number of images.

    Returns:
        (P, W) float32, one column for each of the W <= MOST_WORDS most frequent ids.
    """
    frequent = numpy.argsort(-numpy.bincount(ids.ravel()), kind="stable")[:MOST_WORDS]
    column = numpy.full(ids.max() + 1, -1)
    column[frequent] = numpy.arange(len(frequent))
    counts = numpy.zeros((images, len(frequent)), numpy.float32)
    columns = column[ids]
    rows = numpy.broadcast_to(image[:, None], ids.shape)
    numpy.add.at(counts, (rows[columns >= 0], columns[columns >= 0]), 1)
    return counts


def canonical_directions(x: numpy.ndarray, y: numpy.ndarray, count: int) -> numpy.ndarray:
    """Find the linear combinations of x that correlate most with linear combinations of y.

    This is canonical correlation analysis (Hotelling 1936) with a ridge (Vinod 1976). Both sides
    are whitened. The directions are the left singular vectors of the whitened cross-covariance;
    its singular values are the correlations, made slightly smaller by the ridge.

    Args:
        x: (P, F) with columns of mean 0 and variances of about 1.
        y: (P, W) likewise.
        count: the number of directions.

    Returns:
        (F, K), K = min(count, rank of x, rank of y). The columns of ``x @ directions`` have
        variance 1, made slightly smaller by the ridge, and almost no correlation.
    """
    white_x, white_y = _whitening(x), _whitening(y)
    correlations = white_x.T @ (x.T @ y / len(x)) @ white_y
    left, _, _ = numpy.linalg.svd(correlations, full_matrices=False)
    directions = white_x @ left[:, :count]
    # The sign of a direction is arbitrary: make the largest entry of each positive.
    largest = numpy.abs(directions).argmax(axis=0)
    return directions * numpy.sign(directions[largest, numpy.arange(directions.shape[1])])


def _whitening(x: numpy.ndarray) -> numpy.ndarray:
    """(F, F') matrix that whitens the columns of x; directions without variance are dropped."""
    variances, directions = numpy.linalg.eigh(x.T @ x / len(x))
    varies = variances > ROUNDING
    return directions[:, varies] / numpy.sqrt(variances[varies] + RIDGE)
