"""Canonical correlation analysis: the directions in the features that captions talk about."""

import numpy

# Both are relative to variances of about 1, as x and y have them.
RIDGE = 3e-4  # added to every variance: directions that hardly vary are noise
ROUNDING = 1e-9  # a variance of this or less is none
MOST_WORDS = 1000  # rarer words say little, and cost memory


def word_counts(ids: numpy.ndarray, photo: numpy.ndarray, photos: int) -> numpy.ndarray:
    """Count how often the captions of each photo use each of the most frequent words.

    #PAD#, #END# and the like are counted, too: they tell how long the captions are.

    Args:
        ids: (C, T) token ids of C captions, padded.
        photo: (C,) the photo of each caption.
        photos: P, the number of photos.

    Returns:
        (P, W) float32, one column for each of the W <= MOST_WORDS most frequent ids.
    """
    frequent = numpy.argsort(-numpy.bincount(ids.ravel()), kind="stable")[:MOST_WORDS]
    column = numpy.full(ids.max() + 1, -1)
    column[frequent] = numpy.arange(len(frequent))
    counts = numpy.zeros((photos, len(frequent)), numpy.float32)
    columns = column[ids]
    rows = numpy.broadcast_to(photo[:, None], ids.shape)
    numpy.add.at(counts, (rows[columns >= 0], columns[columns >= 0]), 1)
    return counts


def canonical_directions(x: numpy.ndarray, y: numpy.ndarray, count: int) -> numpy.ndarray:
    """Find the linear combinations of x that correlate most with linear combinations of y.

    Canonical correlation analysis (Hotelling 1936) with a ridge (Vinod 1976). Both sides are
    whitened; the singular vectors of what is left of the cross-covariance are the directions. Its
    singular values are the correlations, or a little less because of the ridge.

    Args:
        x: (P, F), each column of mean 0, with variances of about 1.
        y: (P, W), the same.
        count: how many directions.

    Returns:
        (F, K), K at most count, F and W. The columns of x @ directions have a variance of 1, or a
        little less because of the ridge, and hardly any correlation.
    """
    white_x, white_y = _whitening(x), _whitening(y)
    correlations = white_x.T @ (x.T @ y / len(x)) @ white_y
    left, _, _ = numpy.linalg.svd(correlations, full_matrices=False)
    directions = white_x @ left[:, :count]
    # A direction and its opposite are as good: make the largest entry of each positive.
    largest = numpy.abs(directions).argmax(axis=0)
    return directions * numpy.sign(directions[largest, numpy.arange(directions.shape[1])])


def _whitening(x: numpy.ndarray) -> numpy.ndarray:
    """(F, F'): a matrix that gives the columns of x variance 1 and no correlations, F' <= F.

    Directions in which x does not vary are left out: what lies there is rounding.
    """
    variances, directions = numpy.linalg.eigh(x.T @ x / len(x))
    varies = variances > ROUNDING
    return directions[:, varies] / numpy.sqrt(variances[varies] + RIDGE)
