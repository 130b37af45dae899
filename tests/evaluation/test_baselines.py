"""Floors: what nearest means, what a consensus is, and that nobody keeps their own caption."""

import math
from collections import Counter

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.vocabulary import tokenise
from minicap.evaluation.baselines import consensus, floors, most_frequent_caption, nearest, others


def pictures(captions, features=None):
    names = [f"{number}.jpg" for number in range(len(captions))]
    return EvaluationSet(names, captions, features, None, [])


@given(st.integers(2, 40), st.integers(0, 9))
def test_others_are_others_and_each_comes_once(number, seed):
    other = others(number, seed).tolist()
    assert sorted(other) == list(range(number))
    assert all(mine != theirs for mine, theirs in enumerate(other))
    assert other == others(number, seed).tolist()


def test_the_most_frequent_caption_is_counted_as_words():
    """Case and full stops do not matter; of several, the first in the alphabet."""
    assert most_frequent_caption([["A dog.", "b"], ["a DOG", "b b"]]) == "a dog"
    assert most_frequent_caption([["b", "c"], ["a", "c", "b"]]) == "b"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nearest_by_cosine(dtype):
    """As a loop over all pairs finds them, in order; length does not matter; more than there are
    is all of them."""
    rng = numpy.random.default_rng(3)
    there = (rng.normal(size=(40, 6)) * rng.uniform(1, 9, (40, 1))).astype(dtype)
    asked = rng.normal(size=(700, 6)).astype(dtype)

    def cosine(a, b):
        a, b = a.astype(float), b.astype(float)
        return a @ b / math.sqrt((a @ a) * (b @ b))

    found = nearest(asked, there, 5)
    for row in range(0, 700, 60):
        ranked = sorted(range(40), key=lambda k, row=row: -cosine(asked[row], there[k]))
        assert found[row].tolist() == ranked[:5]
    assert numpy.array_equal(nearest(asked * 2, there * 4, 5), found)
    assert nearest(asked, there, 100).shape == (700, 40)


def test_features_of_zeros_are_near_to_nobody_and_no_error():
    there = numpy.eye(3, dtype=numpy.float32)
    assert nearest(numpy.zeros((1, 3)), there, 2).shape == (1, 2)
    assert nearest(there[1:2], numpy.vstack([numpy.zeros((1, 3)), there]), 1).tolist() == [[2]]


def consensus_by_hand(captions, row):
    """Caption -> its mean likeness to all captions of the other neighbours, pair by pair; of the
    same caption of two neighbours, the greater."""
    runs = [
        [
            [Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for n in (1, 2, 3, 4)]
            for w in map(tokenise, some)
        ]
        for some in captions
    ]

    def weight(run):
        n = len(run) - 1
        return math.log(len(captions) / sum(any(run in text[n] for text in some) for some in runs))

    def cosine(a, b):
        a, b = ({run: k * weight(run) for run, k in some.items()} for some in (a, b))
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        return sum(v * b.get(run, 0) for run, v in a.items()) / norm if norm else 0.0

    def likeness(k, text):
        strangers = [other for j in row if j != k for other in runs[j]]
        pairs = [cosine(a, b) for other in strangers for a, b in zip(text, other, strict=True)]
        return sum(pairs) / max(1, len(strangers))

    found: dict[str, float] = {}
    for k in row:
        for caption, text in zip(captions[k], runs[k], strict=True):
            found[caption] = max(found.get(caption, 0), likeness(k, text))
    return found


CAPTIONS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.lists(CAPTIONS, min_size=1, max_size=3), min_size=3, max_size=7), st.data())
def test_consensus_is_what_all_pairs_say(captions, data):
    """The chosen caption's mean likeness is the greatest there is."""
    row = data.draw(st.permutations(range(len(captions))))[: data.draw(st.integers(1, 5))]
    (chosen,) = consensus(captions, numpy.array([row]))
    by_hand = consensus_by_hand(captions, row)
    assert by_hand[chosen] == pytest.approx(max(by_hand.values()), abs=1e-9)


def test_consensus_listens_to_others_than_oneself():
    """The caption that two photos agree on, not the one that one photo repeats."""
    captions = [
        ["a red kite", "a red kite", "a red kite"],
        ["the dog barks", "grass"],
        ["the dog barks", "sky"],
        ["x y", "z"],
        ["u v", "w"],
    ]
    assert consensus(captions, numpy.array([[0, 1, 2]])) == ["the dog barks"]


def test_floors_that_can_be_known():
    """Each of its writer; without train, or without features, those that need none of it."""
    eye = numpy.eye(3, dtype=numpy.float32)
    train = pictures([["red one"], ["blue two"], ["green three"]], eye)
    asked = pictures([["r"], ["b"]], eye[[2, 0]])
    found = floors(["p", "q"], asked, train, 1, 0)
    assert found == {
        "nearest neighbours (1)": ["green three", "red one"],
        "shuffled features": ["q", "p"],
        "most frequent caption": ["blue two"] * 2,
    }
    assert list(floors(["p", "q"], pictures([["r"], ["b"]]), train, 1, 0)) == list(found)[1:]
    assert list(floors(["p", "q"], asked, None, 1, 0)) == ["shuffled features"]


def test_more_neighbours_than_photos_are_all_photos():
    eye = numpy.eye(2, dtype=numpy.float32)
    some = pictures([["a b"], ["a c"]], eye)
    assert "nearest neighbours (2)" in floors(["p", "q"], some, some, 30, 0)
