"""Choosing the next word: the likeliest, or a sample from exactly the right set."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.generation.sampling import extensions, likeliest, nucleus, sample

LOGITS = numpy.array([1.5, 0.0, -1.0, 0.7, -numpy.inf])


def samples(logits, number, temperature=1.0, top_k=0, top_p=1.0, seed=3):
    """Many words from the same logits."""
    uniform = numpy.random.default_rng(seed).random(number).astype(logits.dtype)
    ids, values = sample(uniform, temperature, top_k, top_p, numpy.tile(logits, (number, 1)))
    assert (values[:, 0] == logits[ids[:, 0]]).all()
    return ids[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_p_to_the_power_of_1_over_temperature(temperature, dtype):
    """Chi-square with 3 degrees of freedom: 16.3 is exceeded once in 1,000 times."""
    p = numpy.exp(LOGITS)
    expected = (p / p.sum()) ** (1 / temperature)
    expected *= 40_000 / expected.sum()
    found = samples(LOGITS.astype(dtype), 40_000, temperature)
    counts = numpy.bincount(found, minlength=5)
    assert counts[4] == 0
    assert ((counts - expected)[:4] ** 2 / expected[:4]).sum() < 16.3


@pytest.mark.parametrize("words", [1, 2, 40, 99, 100, 101])
def test_samples_from_many_words(words):
    """Whether or not they fill a square: chi-square with up to 100 degrees of freedom is below its
    mean plus four standard deviations."""
    logits = numpy.random.default_rng(words).normal(size=words)
    expected = 30_000 * numpy.exp(logits) / numpy.exp(logits).sum()
    counts = numpy.bincount(samples(logits, 30_000), minlength=words)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square <= words - 1 + 4 * numpy.sqrt(2 * (words - 1))


def test_samples_from_a_hundred_words():
    """One of the above, under a name for the mutants."""
    test_samples_from_many_words(100)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_uniform_sample_chooses_a_banned_word(dtype):
    """Neither the smallest nor the largest, which float32 rounds to 1, wherever the allowed words
    are."""
    uniform = numpy.array([0, 1e-300, 1e-30, 0.5, 1 - 1e-7, 1 - 1e-12, 1], dtype)
    rng = numpy.random.default_rng(0)
    for words in 3, 50, 1000:
        for _ in range(50):
            logits = rng.normal(size=words).astype(dtype) * 10
            logits[rng.random(words) < 0.9] = -numpy.inf
            logits[rng.integers(words)] = 0
            ids, values = sample(uniform, 1.0, 0, 1.0, numpy.tile(logits, (7, 1)))
            assert numpy.isfinite(values).all()


def test_the_logit_is_minus_infinity_where_every_word_is_banned():
    with numpy.errstate(invalid="raise", divide="raise"):
        for top_k, top_p in (0, 1.0), (2, 0.5):
            logits = numpy.full((2, 7), -numpy.inf)
            logits[1, 3] = 0
            _, values = sample(numpy.array([0.3, 0.3]), 1.0, top_k, top_p, logits)
            assert values[:, 0].tolist() == [-numpy.inf, 0]


def by_definition(p, top_k, top_p):
    """The set of Fan et al. and Holtzman et al., in plain Python."""
    order = sorted(range(len(p)), key=lambda n: -p[n])[: top_k or len(p)]
    total, chosen = sum(p[n] for n in order), []
    for n in order:
        chosen.append(n)
        if sum(p[n] for n in chosen) >= top_p * total:
            break
    return set(chosen)


@given(
    counts=st.lists(st.integers(1, 10_000), min_size=1, max_size=30, unique=True),
    top_k=st.integers(0, 32),
    top_p=st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.999, 1.0]),
)
def test_top_k_and_top_p_keep_exactly_the_right_words(counts, top_k, top_p):
    """Integers have exact sums, so that rounding does not decide on the last word. They are
    multiplied by 3, because the distribution need not be normalised."""
    p = numpy.array(counts, float)
    (kept,) = nucleus(3 * p[None], top_k, top_p)
    assert set(numpy.flatnonzero(kept)) == by_definition(counts, top_k, top_p)


def test_each_row_has_its_own_set():
    p = numpy.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25]])
    kept = nucleus(p, 0, 0.65)
    assert kept.tolist() == [[True, True, False], [False, False, True], [True, True, False]]


def test_ties_are_kept():
    assert nucleus(numpy.array([[0.4, 0.3, 0.3]]), 2, 1.0).all()


def test_samples_are_from_the_set():
    """From all of it and nothing else. Temperature comes first: it changes the set."""
    logits = numpy.log([0.5, 0.25, 0.15, 0.1])
    assert set(samples(logits, 500, top_k=2)) == {0, 1}
    assert set(samples(logits, 500, top_p=0.8)) == {0, 1, 2}
    assert set(samples(logits, 500, top_k=3, top_p=0.8)) == {0, 1}  # 0.75 of 0.9
    assert set(samples(logits, 500, temperature=0.25, top_p=0.8)) == {0}
    assert set(samples(logits, 500, temperature=100.0, top_p=0.8)) == {0, 1, 2, 3}


@given(st.integers(1, 8), st.integers(0, 10_000))
def test_likeliest_words_come_first_in_a_sort(k, seed):
    logits = numpy.random.default_rng(seed).normal(size=(5, 8))
    ids, values = likeliest(k, logits.copy())
    order = (-logits).argsort(axis=1)[:, :k]
    assert (ids == order).all()
    assert (values == numpy.take_along_axis(logits, order, axis=1)).all()


@pytest.mark.parametrize("shift", [-2000.0, 0.0, 2000.0])
def test_log_probabilities_are_normalised_over_all_words(shift):
    """Banned words count too, listed once or twice, and no exp overflows."""
    rng = numpy.random.default_rng(0)
    y, Wb = rng.normal(size=(4, 3)), rng.normal(size=(4, 9))
    Wb[-1] += shift
    logits = y @ Wb[:-1] + Wb[-1]
    exact = numpy.exp(logits - logits.max(axis=1, keepdims=True))
    exact = numpy.log(exact / exact.sum(axis=1, keepdims=True))
    bans = numpy.array([[0, 0], [1, 2], [3, 3], [8, 0]])
    ids, found = extensions(y, Wb, bans, lambda logits: likeliest(9, logits))
    for row in range(4):
        allowed = [n for n in exact[row].argsort()[::-1] if n not in bans[row]]
        assert ids[row, : len(allowed)].tolist() == allowed
        numpy.testing.assert_allclose(found[row, : len(allowed)], exact[row, allowed], rtol=1e-10)
        assert (found[row, len(allowed) :] == -numpy.inf).all()
