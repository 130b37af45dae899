"""Scheduled sampling: which inputs are replaced, and by which words."""

import numpy
import pytest

from minicap.data.batches import pack
from minicap.decoder import first_state, next_word
from minicap.gradcheck import decoder_case
from minicap.nn.dense import affine
from minicap.scheduled_sampling import mixed_inputs

SPECIALS = 4  # #END#, #PAD#, #START# and #UNK# have the first ids


def example(seed=0):
    """A trained decoder of nine words, a batch, and luck for it."""
    rng = numpy.random.default_rng(seed)
    p, batch, _ = decoder_case(rng, steps=20)
    return p, batch, rng.random((2, len(batch.targets)))


def probabilities(p, features, caption):
    """Of the words after each beginning of a caption, (T, V), word by word, as when writing;
    special words have none."""
    state, found = first_state(p, features[None]), []
    for word in caption:
        y, *state = next_word(p, numpy.array([word]), *state)
        e = numpy.exp(affine(y, p["token_logits"])[0])
        e[:SPECIALS] = 0
        found.append(e / e.sum())
    return numpy.array(found)


def by_definition(p, batch, share, luck):
    """The mixed inputs, one caption after the other."""
    inputs = batch.words[batch.positions]
    mixed = inputs.copy()
    for n, features in enumerate(batch.features):
        rows = numpy.flatnonzero(batch.captions == n)
        after = probabilities(p, features, inputs[rows])
        for t, row in enumerate(rows):
            if t > 0 and luck[0, row] < share:
                mixed[row] = numpy.searchsorted(after[t - 1].cumsum(), luck[1, row], side="right")
    return mixed


def test_words_are_drawn_from_the_step_before():
    """Every input but the first of each caption, and a part of them: the very word that its
    random number stands for, from the softmax that the true beginning leads to."""
    for seed in range(5):
        p, batch, luck = example(seed)
        for share in 0.4, 1.0:
            expected = by_definition(p, batch, share, luck)
            assert mixed_inputs(p, batch, share, luck).tolist() == expected.tolist()
        first = batch.sizes[0]
        assert (expected[:first] == 1).all() and (expected[first:] >= SPECIALS).all()
        assert (expected != batch.words[batch.positions]).any()


def test_a_share_of_0_leaves_the_batch_as_it_is():
    p, batch, luck = example()
    same = batch.with_inputs(mixed_inputs(p, batch, 0.0, luck))
    for name, array in vars(batch).items():
        assert numpy.array_equal(array, getattr(same, name)), name


def test_a_share_of_a_quarter_replaces_a_quarter():
    """Where a model is sure of one word: 3 deviations of 8,000 draws."""
    p, _, _ = example()
    p["token_logits"][-1, 8] = 1e3
    batch = pack(
        numpy.ones((2000, 5)), numpy.tile([1, 4, 5, 6, 7, 2], (2000, 1)), numpy.full(2000, 6)
    )
    luck = numpy.random.default_rng(0).random((2, len(batch.targets)))
    replaced = mixed_inputs(p, batch, 0.25, luck) == 8
    assert not replaced[:2000].any()
    assert abs(replaced[2000:].mean() - 0.25) < 3 * (0.25 * 0.75 / 8000) ** 0.5


def test_words_come_as_often_as_they_are_likely():
    """20,000 times the same caption, at its second and its third input: chi-square with 4 degrees
    of freedom, 18.5 is exceeded once in 1,000 times."""
    p, _, _ = example()
    p["token_logits"][:-1] *= 3
    features, caption = numpy.random.default_rng(1).standard_normal(5), [1, 4, 7, 2]
    number = 20_000
    batch = pack(
        numpy.tile(features, (number, 1)), numpy.tile(caption, (number, 1)), numpy.full(number, 4)
    )
    luck = numpy.random.default_rng(2).random((2, 3 * number))
    inputs = mixed_inputs(p, batch, 1.0, luck).reshape(3, number)
    for drawn, after in zip(inputs[1:], probabilities(p, features, caption[:2]), strict=True):
        counts, expected = numpy.bincount(drawn, minlength=9), number * after
        assert counts[:SPECIALS].sum() == 0 and expected[SPECIALS:].min() > 50
        difference = (counts - expected)[SPECIALS:]
        assert (difference**2 / expected[SPECIALS:]).sum() < 18.5


@pytest.mark.parametrize("workers", [2, 3])
def test_shares_of_a_batch_are_mixed_like_the_whole(workers):
    p, batch, luck = example()
    mixed = numpy.empty(len(batch.targets), dtype=int)
    for share, index in batch.split(workers):
        mixed[index["rows"]] = mixed_inputs(p, share, 0.7, luck[:, index["rows"]])
    assert (mixed == mixed_inputs(p, batch, 0.7, luck)).all()
