"""Baselines: nearest neighbours, consensus captions, and shuffled features."""

import math
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.vocabulary import tokenise
from minicap.evaluation.baselines import (
    baselines,
    consensus,
    most_frequent_caption,
    nearest,
    others,
)


def images(captions, features=None):
    names = [f"{number}.jpg" for number in range(len(captions))]
    return EvaluationSet(names, captions, features, None, [])


@given(st.integers(2, 40), st.integers(0, 9))
def test_others_is_a_permutation_without_fixed_points(number, seed):
    other = others(number, seed).tolist()
    assert sorted(other) == list(range(number))
    assert all(mine != theirs for mine, theirs in enumerate(other))
    assert other == others(number, seed).tolist()


def test_the_most_frequent_caption_is_counted_as_words():
    """Case and punctuation do not matter; a tie goes to the first in alphabetical order."""
    assert most_frequent_caption([["A dog.", "b"], ["a DOG", "b b"]]) == "a dog"
    assert most_frequent_caption([["b", "c"], ["a", "c", "b"]]) == "b"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nearest_by_cosine(dtype):
    """Those of a loop over all pairs, in order. The length of the features does not matter. Asking
    for more than there are gives all."""
    rng = numpy.random.default_rng(3)
    train = (rng.normal(size=(40, 6)) * rng.uniform(1, 9, (40, 1))).astype(dtype)
    features = rng.normal(size=(700, 6)).astype(dtype)

    def cosine(a, b):
        a, b = a.astype(float), b.astype(float)
        return a @ b / math.sqrt((a @ a) * (b @ b))

    found = nearest(features, train, 5)
    for row in range(0, 700, 60):
        ranked = sorted(range(40), key=lambda k, row=row: -cosine(features[row], train[k]))
        assert found[row].tolist() == ranked[:5]
    assert numpy.array_equal(nearest(features * 2, train * 4, 5), found)
    assert nearest(features, train, 100).shape == (700, 40)


def test_features_of_zeros_are_similar_to_none():
    train = numpy.eye(3, dtype=numpy.float32)
    assert nearest(numpy.zeros((1, 3)), train, 2).shape == (1, 2)
    assert nearest(train[1:2], numpy.vstack([numpy.zeros((1, 3)), train]), 1).tolist() == [[2]]


def consensus_by_hand(captions, row):
    """Caption -> its mean similarity to all captions of the other neighbours, pair by pair. If two
    neighbours have the same caption, the higher one."""
    ngrams = [
        [
            [Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for n in (1, 2, 3, 4)]
            for w in map(tokenise, some)
        ]
        for some in captions
    ]

    def weight(ngram):
        n = len(ngram) - 1
        return math.log(
            len(captions) / sum(any(ngram in text[n] for text in some) for some in ngrams)
        )

    def cosine(a, b):
        a, b = ({ngram: k * weight(ngram) for ngram, k in some.items()} for some in (a, b))
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(v * b.get(ngram, 0) for ngram, v in a.items()) / norm if norm else 0.0

    def similarity(k, text):
        captions_of_others = [other for j in row if j != k for other in ngrams[j]]
        pairs = [
            cosine(a, b) for other in captions_of_others for a, b in zip(text, other, strict=True)
        ]
        return sum(pairs) / max(1, len(captions_of_others))

    found: dict[str, float] = {}
    for k in row:
        for caption, text in zip(captions[k], ngrams[k], strict=True):
            found[caption] = max(found.get(caption, 0), similarity(k, text))
    return found


CAPTIONS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.lists(CAPTIONS, min_size=1, max_size=3), min_size=3, max_size=7), st.data())
def test_consensus_is_that_of_a_loop_over_all_pairs(captions, data):
    """The chosen caption has the highest mean similarity."""
    row = data.draw(st.permutations(range(len(captions))))[: data.draw(st.integers(1, 5))]
    (chosen,) = consensus(captions, numpy.array([row]))
    by_hand = consensus_by_hand(captions, row)
    assert by_hand[chosen] == pytest.approx(max(by_hand.values()), abs=1e-9)


def test_consensus_ignores_captions_of_the_same_image():
    """The caption that two images agree on wins, not one that a single image repeats."""
    captions = [
        ["a red kite", "a red kite", "a red kite"],
        ["the dog barks", "grass"],
        ["the dog barks", "sky"],
        ["x y", "z"],
        ["u v", "w"],
    ]
    assert consensus(captions, numpy.array([[0, 1, 2]])) == ["the dog barks"]


def test_baselines_that_the_data_allows():
    """All; without training set or features, those that do not need them."""
    eye = numpy.eye(3, dtype=numpy.float32)
    train = images([["red one"], ["blue two"], ["green three"]], eye)
    dev = images([["r"], ["b"]], eye[[2, 0]])
    found = baselines(["p", "q"], dev, train, 1, 0)
    assert found == {
        "nearest neighbours (1)": ["green three", "red one"],
        "shuffled features": ["q", "p"],
        "most frequent caption": ["blue two"] * 2,
    }
    assert list(baselines(["p", "q"], images([["r"], ["b"]]), train, 1, 0)) == list(found)[1:]
    assert list(baselines(["p", "q"], dev, None, 1, 0)) == ["shuffled features"]


def test_more_neighbours_than_images_are_all_images():
    eye = numpy.eye(2, dtype=numpy.float32)
    some = images([["a b"], ["a c"]], eye)
    assert "nearest neighbours (2)" in baselines(["p", "q"], some, some, 30, 0)
