"""Writing captions: greedy, drawn at random, and in any company."""

import numpy
import pytest

from minicap import generate as module
from minicap.decoder import first_state, next_word
from minicap.generate import generate, greedy, sampler
from tests.tiny import WIDTH, model

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH))


def write(features=FEATURES, max_words=6, choose=greedy, dtype="float64", banned=None):
    m = model(dtype=dtype)
    v = m.vocabulary
    banned = (v.pad, v.start, v.unk) if banned is None else banned
    return generate(m.parameters, features.astype(dtype), v.start, v.end, banned, max_words, choose)


def by_hand(feature, max_words=6):
    """Greedy for one picture, one step at a time, with plain Python around the decoder."""
    m = model(dtype="float64")
    v = m.vocabulary
    h, _ = first_state(m.parameters, feature[None])
    c, word, caption = h, v.start, []
    while len(caption) < max_words:
        logits, h, c = next_word(m.parameters, numpy.array([word]), h, c)
        allowed = [n for n in range(len(v)) if n not in (v.pad, v.start, v.unk)]
        word = max(allowed, key=lambda n: logits[0, n])
        if word == v.end:
            break
        caption.append(word)
    return caption


def test_greedy_is_the_argmax_step_by_step():
    captions = write()
    assert captions == [by_hand(feature) for feature in FEATURES]
    lengths = {len(caption) for caption in captions}
    assert 6 in lengths and len(lengths) > 1  # some are cut, some end by themselves


def test_company_changes_no_caption():
    """Alone, in twos, in any order: the same captions (float64: last bits may differ)."""
    together = write()
    for size in (1, 2, 4):
        parts = [FEATURES[start : start + size] for start in range(0, len(FEATURES), size)]
        assert [caption for part in parts for caption in write(part)] == together
    assert write(FEATURES[::-1]) == together[::-1]


def test_finished_captions_leave_the_batch(monkeypatch):
    """Each step works on the pictures that are not finished, and on no other."""
    rows = []

    def counted(p, words, h, c):
        rows.append(len(words))
        return next_word(p, words, h, c)

    monkeypatch.setattr(module, "next_word", counted)
    captions = write()
    assert rows == [sum(len(caption) >= step for caption in captions) for step in range(6)]
    assert rows[-1] < rows[0]


@pytest.mark.parametrize("max_words", [0, 1, 3])
def test_no_caption_is_longer_than_max_words(max_words):
    captions = write(max_words=max_words)
    assert max(map(len, captions)) == max_words
    assert captions == [caption[:max_words] for caption in write()]


def test_banned_words_are_never_written():
    """Neither greedily nor by a sampler so hot that every word is as likely as any other."""
    v = model().vocabulary
    special = {v.pad, v.start, v.unk}
    hot = sampler(numpy.random.default_rng(0), 1000.0)
    many = numpy.repeat(FEATURES, 50, axis=0)
    drawn = {word for caption in write(many, choose=hot) for word in caption}
    assert drawn == set(range(len(v))) - special - {v.end}
    favourite = max(write(), key=len)[0]
    captions = write(banned=(*special, favourite))
    assert favourite not in {word for caption in captions for word in caption}


def test_no_pictures():
    assert write(FEATURES[:0]) == []


LOGITS = numpy.array([1.5, 0.0, -1.0, 0.7, -numpy.inf])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_sampler_draws_p_to_the_power_of_1_over_temperature(temperature, dtype):
    """Chi-square with 3 degrees of freedom: 16.3 is exceeded once in 1,000 times."""
    p = numpy.exp(LOGITS)
    expected = (p / p.sum()) ** (1 / temperature)
    expected *= 40_000 / expected.sum()
    logits = numpy.tile(LOGITS.astype(dtype), (40_000, 1))
    drawn = sampler(numpy.random.default_rng(3), temperature)(logits)
    counts = numpy.bincount(drawn, minlength=5)
    assert counts[4] == 0
    assert ((counts - expected)[:4] ** 2 / expected[:4]).sum() < 16.3


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-60, 1e-300])
def test_a_tiny_temperature_is_greedy(temperature):
    """And overflows nothing: float32 knows no 1e-60 and no logit / 1e-39."""
    with numpy.errstate(all="raise"):
        for dtype in ("float32", "float64"):
            cold = sampler(numpy.random.default_rng(0), temperature)
            assert write(choose=cold, dtype=dtype) == write(dtype=dtype)


def test_the_same_seed_writes_the_same():
    def drawn(seed):
        return write(choose=sampler(numpy.random.default_rng(seed), 1.0))

    assert drawn(1) == drawn(1) != drawn(2)
