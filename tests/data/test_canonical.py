"""Canonical correlation analysis, compared with its textbook definition."""

from collections import Counter

import numpy
import pytest

from minicap.data import canonical
from minicap.data.canonical import canonical_directions, word_counts
from minicap.data.features import Scaling


def standard(x):
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(float)


@pytest.fixture
def sides():
    """x (500, 8) and y (500, 5) that share two hidden numbers."""
    rng = numpy.random.default_rng(0)
    hidden = rng.standard_normal((500, 2))
    x, y = (hidden @ rng.standard_normal((2, n)) + rng.standard_normal((500, n)) for n in (8, 5))
    return standard(x), standard(y)


def test_correlations_are_those_of_orthogonal_bases(sides, monkeypatch):
    """Without a ridge they are the singular values of Qx'Qy (Bjoerck and Golub 1973)."""
    monkeypatch.setattr(canonical, "RIDGE", 1e-12)
    x, y = sides
    (qx, _), (qy, _) = map(numpy.linalg.qr, sides)
    expected = numpy.linalg.svd(qx.T @ qy)[1]
    u, v = x @ canonical_directions(x, y, 5), y @ canonical_directions(y, x, 5)
    found = numpy.abs(numpy.corrcoef(u.T, v.T)[:5, 5:].diagonal())
    numpy.testing.assert_allclose(found, expected, atol=1e-6)
    numpy.testing.assert_allclose(u.T @ u / len(u), numpy.eye(5), atol=1e-6)


def test_the_scale_of_a_feature_does_not_matter(sides, monkeypatch):
    """Neither does any other invertible linear map: the same combinations are found."""
    monkeypatch.setattr(canonical, "RIDGE", 1e-12)
    x, y = sides
    other = x @ numpy.random.default_rng(1).standard_normal((8, 8))
    one, two = x @ canonical_directions(x, y, 2), other @ canonical_directions(other, y, 2)
    numpy.testing.assert_allclose(numpy.abs(one), numpy.abs(two), atol=1e-6)


def test_the_ridge_ignores_directions_of_noise():
    """60 images with 200 noise features, which would fit any words without a ridge."""
    rng = numpy.random.default_rng(0)
    useful = rng.standard_normal((60, 1))
    words = standard(useful + 0.1 * rng.standard_normal((60, 1)))
    x = standard(numpy.hstack([useful.repeat(20, axis=1), 0.1 * rng.standard_normal((60, 200))]))
    x[:, 20:] *= 0.01
    found = x @ canonical_directions(x, words, 1)
    assert abs(numpy.corrcoef(found[:, 0], useful[:, 0])[0, 1]) > 0.99


def test_never_more_directions_than_features_or_words(sides):
    x, y = sides
    assert canonical_directions(x, y, 100).shape == (8, 5)
    assert canonical_directions(y, x, 3).shape == (5, 3)


def test_the_largest_entry_of_a_direction_is_positive(sides):
    directions = canonical_directions(*sides, 4)
    largest = numpy.abs(directions).argmax(axis=0)
    assert (directions[largest, range(4)] > 0).all()


def test_word_counts_are_counts(monkeypatch):
    rng = numpy.random.default_rng(0)
    ids, image = rng.integers(0, 9, (30, 6)), rng.integers(0, 4, 30)
    counts = word_counts(ids, image, 5)
    everything = Counter(ids.ravel().tolist())
    columns = [word for word, _ in sorted(everything.items(), key=lambda pair: (-pair[1], pair[0]))]
    for row in range(5):
        expected = Counter(ids[image == row].ravel().tolist())
        assert counts[row].tolist() == [expected[word] for word in columns]
    monkeypatch.setattr(canonical, "MOST_WORDS", 3)
    assert (word_counts(ids, image, 5) == counts[:, :3]).all()


def test_a_constant_feature_gives_finite_results():
    x = numpy.random.default_rng(0).standard_normal((40, 3)).astype("float32")
    x[:, 1] = 7
    assert numpy.isfinite(Scaling.canonical(x, x[:, :1] + 1, 2)(x)).all()


def test_the_ridge_is_added_to_the_variance():
    """A feature whose variance equals the ridge keeps half of its variance after whitening."""
    y = standard(numpy.random.default_rng(0).standard_normal((200, 1)))
    x = y * numpy.sqrt(canonical.RIDGE)
    assert (x @ canonical_directions(x, y, 1)).var() == pytest.approx(0.5, rel=1e-9)
