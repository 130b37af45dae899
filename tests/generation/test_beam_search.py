"""GenerationConfig captions: the best that there are, within the rules, in any company."""

import functools
import itertools
from dataclasses import replace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicap.data.batches import pack
from minicap.generation import beam_search as module
from minicap.generation.beam_search import beam_search
from minicap.generation.config import GREEDY, Constraints, GenerationConfig
from minicap.model.config import Sizes
from minicap.model.decoder import caption_loss, initial_state, next_word
from minicap.model.initial import initialise
from minicap.nn.dense import affine
from minicap.utils.errors import UserError
from tests.tiny import SHAPE, WIDTH, model

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH))
V = model().vocabulary
WORDS = [V.ids[word] for word in ("a", "blue", "dog", "red")]
RULES = Constraints(V.start, V.end, (V.pad, V.unk), max_words=6)
WIDE = 400  # more captions than there are of four words or less: 1 + 4 + 16 + 64 + 256


def decoder(seed=5, dtype="float64", shape=SHAPE):
    """Parameters that have opinions, and #END# is no rare word."""
    p = initialise(Sizes(len(V), WIDTH, **shape), numpy.random.default_rng(seed))
    p.flat *= 4
    p["token_logits"][-1, V.end] = 1.5
    return {name: array.astype(dtype) for name, array in p.items()}


def write(p=None, features=FEATURES, rules=RULES, count=1, rng=None, **how):
    """All candidates of each picture, by one decoder."""
    p = p or decoder()
    features = features.astype(p["lstm"].dtype)
    return beam_search([p], [features], rules, GenerationConfig(**how), count, rng)


def texts(found):
    """Nothing but the words."""
    return [[caption.ids for caption in captions] for captions in found]


def distributions(p, feature, ids):
    """The log-probabilities (V,) that follow on #START# and on each word, one step at a time."""
    state, found = initial_state(p, feature[None]), []
    for word in (V.start, *ids):
        y, *state = next_word(p, numpy.array([word]), *state)
        logits = affine(y, p["token_logits"])[0]
        top = logits.max()
        found.append(logits - top - numpy.log(numpy.exp(logits - top).sum()))
    return found


@functools.cache
def tree(seed, picture, length_penalty=GenerationConfig.alpha):
    """Every caption of four words or less, with its score, best first: no search at all."""
    p, scored = decoder(seed), []
    for length in range(5):
        for ids in itertools.product(WORDS, repeat=length):
            written = [*ids, V.end][:4]
            steps = distributions(p, FEATURES[picture], written[:-1])
            total = sum(step[word] for step, word in zip(steps, written, strict=True))
            scored.append((total / len(written) ** alpha, list(ids)))
    return sorted(scored, reverse=True)


def repeats(ids, n):
    """Whether a sequence of n words comes twice."""
    grams = [tuple(ids[k : k + n]) for k in range(len(ids) - n + 1)]
    return len(set(grams)) < len(grams)


# Greedy


def test_a_beam_of_one_is_greedy():
    """The likeliest word that may be written, step by step, in plain Python."""
    p = decoder()
    found = [captions[0].ids for captions in write(p, beam_size=1)]
    for feature, ids in zip(FEATURES, found, strict=True):
        expected = []
        while len(expected) < 6:
            step = distributions(p, feature, expected)[-1]
            word = max([*WORDS, V.end], key=lambda n: step[n])
            if word == V.end:
                break
            expected.append(word)
        assert ids == expected
    lengths = {len(ids) for ids in found}
    assert 6 in lengths and len(lengths) > 1  # some are cut, some end by themselves


def test_length_normalisation_does_not_touch_a_beam_of_one():
    assert texts(write(beam_size=1, length_penalty=0.0)) == texts(
        write(beam_size=1, length_penalty=3.0)
    )


# The best


def test_a_wide_beam_is_the_whole_tree():
    assert_whole_tree(length_penalty=0.7)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.5])
def test_a_beam_as_wide_as_the_tree_finds_the_best(alpha):
    """Not only the best: all captions that there are, in the order of their scores."""
    assert_whole_tree(alpha)


def assert_whole_tree(alpha):
    rules = replace(RULES, max_words=4)
    for seed in range(3):
        (found,) = write(decoder(seed), FEATURES[:1], rules, beam_size=WIDE, length_penalty=alpha)
        expected = tree(seed, 0, alpha)
        assert len(found) == len(expected) == 341
        # Told in a word: to compare two such long lists for a message takes pytest minutes.
        same = [caption.ids for caption in found] == [ids for _, ids in expected]
        assert same, f"another order, seed {seed}"
        scores = [caption.score for caption in found]
        numpy.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-12)


def test_alpha_decides_between_short_and_long():
    """Or the test above would show nothing of it."""
    rules = replace(RULES, max_words=4)
    short, long = (write(rules=rules, beam_size=WIDE, length_penalty=alpha) for alpha in (0.0, 2.5))
    lengths = [[len(captions[0].ids) for captions in found] for found in (short, long)]
    assert numpy.mean(lengths[0]) < 2 and numpy.mean(lengths[1]) > 3


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    beam_size=st.integers(1, 6),
    length_penalty=st.sampled_from([0.0, 0.7, 1.0]),
    max_words=st.integers(1, 8),
)
def test_candidates_are_different_and_in_falling_order(seed, beams, alpha, max_words):
    """As many as there are hypotheses, none longer than it may be, and each with the score that
    its words have: a probability for each, and for #END# unless the caption was cut."""
    rules = replace(RULES, max_words=max_words)
    for captions in write(decoder(seed), rules=rules, beam_size=beams, length_penalty=alpha):
        assert 1 <= len(captions) <= beams
        assert len(captions) == beams or max_words == 1
        assert len({tuple(caption.ids) for caption in captions}) == len(captions)
        scores = [caption.score for caption in captions]
        assert scores == sorted(scores, reverse=True)
        for caption in captions:
            words = len(caption.log_probabilities)
            assert words == min(len(caption.ids) + 1, max_words)
            assert set(caption.ids) <= set(WORDS)
            assert caption.score == pytest.approx(
                sum(caption.log_probabilities) / words**alpha, rel=1e-12
            )


OPTIONS = SHAPE | {"photo": "always", "embedding": 7}


def assert_scores_are_those_of_training(shape=SHAPE, **how):
    """caption_loss gives the same to the same ids, to 1e-12, and so does one step after another."""
    p = decoder(shape=shape)
    for feature, captions in zip(
        FEATURES, write(p, rng=numpy.random.default_rng(0), **how), strict=True
    ):
        for caption in captions:
            ids = [V.start, *caption.ids, V.end][: 1 + len(caption.log_probabilities)]
            batch = pack(feature[None], numpy.array([ids]), numpy.array([len(ids)]))
            loss, _ = caption_loss(p, batch, divisor=1)
            assert -sum(caption.log_probabilities) == pytest.approx(float(loss), rel=1e-12)
            steps = distributions(p, feature, ids[1:-1])
            expected = [step[word] for step, word in zip(steps, ids[1:], strict=True)]
            numpy.testing.assert_allclose(caption.log_probabilities, expected, rtol=1e-12)


def test_scores_of_a_beam_are_those_of_training():
    assert_scores_are_those_of_training(beam_size=4)


@pytest.mark.parametrize(
    "how",
    [
        {"beams": 1},
        {"beams": 4, "alpha": 0.7},
        {"beams": 3, "no_repeat_ngram_size": 2, "min_length": 3},
        {"temperature": 1.5, "top_p": 0.9},
        {"beams": 4, "shape": OPTIONS},
    ],
)
def test_scores_are_the_log_probabilities_that_training_knows(how):
    """Whatever was banned or drawn."""
    assert_scores_are_those_of_training(**how)


def test_finished_hypotheses_stay_as_they_are(monkeypatch):
    """Once a caption has its #END#, neither a word nor a number of it changes in any later step,
    as long as the beam holds it."""
    finished, seen_again = {}, 0
    getitem = module.Hypotheses.__getitem__

    def watched(self, rows):
        nonlocal seen_again
        held = getitem(self, rows)
        for row in numpy.flatnonzero(held.finished):
            words = held.words[row].tolist()
            key = held.picture[row], *words[: words.index(V.end)]
            now = held.length[row], words, held.gains[row].tolist()
            seen_again += key in finished
            assert finished.setdefault(key, now) == now
        return held

    monkeypatch.setattr(module.Hypotheses, "__getitem__", watched)
    found = write(beam_size=4)
    assert seen_again > 20
    assert all(V.end not in caption.ids for captions in found for caption in captions)


def test_finished_captions_leave_the_batch(monkeypatch):
    """Each step works on the captions that are not finished, and on no other."""
    rows = []

    def counted(p, words, *state):
        rows.append(len(words))
        return next_word(p, words, *state)

    monkeypatch.setattr(module, "next_word", counted)
    found = write(beam_size=1)
    lengths = [len(captions[0].log_probabilities) for captions in found]
    assert rows == [sum(length > step for length in lengths) for step in range(6)]
    assert rows[-1] < rows[0]


# Constraints


@pytest.mark.parametrize("max_words", [0, 1, 3])
def test_no_caption_is_longer_than_max_words(max_words):
    found = write(rules=replace(RULES, max_words=max_words), beam_size=1)
    assert texts(found) == [[captions[0].ids[:max_words]] for captions in write(beam_size=1)]
    for captions in write(rules=replace(RULES, max_words=max_words)):
        assert max(len(caption.ids) for caption in captions) == max_words


def test_banned_words_are_never_written():
    """Neither by a search nor by draws so hot that every word is as likely as any other."""
    many = numpy.repeat(FEATURES, 50, axis=0)
    drawn = write(features=many, temperature=1000.0, rng=numpy.random.default_rng(0))
    assert {word for (caption,) in drawn for word in caption.ids} == set(WORDS)
    favourite = max((captions[0].ids for captions in write(beam_size=1)), key=len)[0]
    rules = replace(RULES, banned=(*RULES.banned, favourite))
    for how in {"beams": 1}, {"beams": 4}, {"temperature": 1.0}:
        found = write(rules=rules, rng=numpy.random.default_rng(0), **how)
        assert favourite not in {word for captions in found for c in captions for word in c.ids}


def test_something_is_always_written():
    """However unlikely it is, and if all is banned, a caption without words."""
    p = decoder()
    p["token_logits"][-1, [V.pad, V.unk, V.start]] += 1000
    assert texts(write(p, beam_size=1)) == texts(write(beam_size=1))
    nothing = replace(RULES, banned=(*RULES.banned, *WORDS))
    for how in {}, {"beams": 1}, {"temperature": 1.0, "top_p": 0.5}:
        rng = numpy.random.default_rng(0)
        for captions in write(rules=nothing, rng=rng, **how):
            assert captions[0].ids == [] and len(captions[0].log_probabilities) == 1
        for captions in write(rules=nothing, rng=rng, min_length=2, **how):
            assert captions == [module.Caption([], [], 0.0)]
    for (caption,) in write(
        beam_size=1, no_repeat_ngram_size=1, min_length=6
    ):  # there are but four words
        assert sorted(caption.ids) == WORDS and len(caption.log_probabilities) == 4
    assert write(features=FEATURES[:0]) == []


@pytest.mark.parametrize(
    ("how", "beginning", "good"),
    [
        ({"no_repeat_ngram_size": 1}, [], lambda ids: not repeats(ids, 1)),
        ({"no_repeat_ngram_size": 2}, [], lambda ids: not repeats(ids, 2)),
        ({"no_repeat_ngram_size": 3}, [], lambda ids: not repeats(ids, 3)),
        ({"min_length": 2}, [], lambda ids: len(ids) >= 2),
        ({"min_length": 4}, [], lambda ids: len(ids) >= 4),
        ({}, WORDS[2:3], lambda ids: ids[:1] == WORDS[2:3]),
        ({}, WORDS[3:1:-1], lambda ids: ids[:2] == WORDS[3:1:-1]),
        (
            {"no_repeat_ngram_size": 1},
            WORDS[:1],
            lambda ids: ids[:1] == WORDS[:1] and not repeats(ids, 1),
        ),
    ],
)
def test_rules_leave_the_best_of_what_they_allow(how, beginning, good):
    """A beam as wide as the tree finds the best caption that keeps to them, for six pictures, of
    which some would have had another; and a narrow one or a draw keeps to them too."""
    rules, otherwise = replace(RULES, max_words=4, prefix=beginning), 0
    for seed in 0, 3:
        p = decoder(seed)
        found = write(p, FEATURES[:3], rules, beam_size=WIDE, **how)
        for picture, (best, *_) in enumerate(found):
            all_there_are = [ids for _, ids in tree(seed, picture)]
            assert best.ids == next(filter(good, all_there_are))
            otherwise += best.ids != all_there_are[0]
        long = replace(rules, max_words=12)
        for options in {"beams": 1}, {"beams": 3}, {"temperature": 1.0}:
            rng = numpy.random.default_rng(seed)
            for captions in write(p, rules=long, rng=rng, **options, **how):
                assert all(good(caption.ids) for caption in captions)
    assert otherwise


def test_no_triple_of_words_is_blocked_that_is_new():
    """Of all captions of five words without a triple that comes twice, the wide beam has each."""
    rules = replace(RULES, max_words=5)
    (found,) = write(
        features=FEATURES[:1], rules=rules, beam_size=2000, no_repeat_ngram_size=3, min_length=5
    )
    written = {tuple(caption.ids) for caption in found}
    assert written == {ids for ids in itertools.product(WORDS, repeat=5) if not repeats(ids, 3)}


def test_min_length_is_the_least_and_no_more():
    rules = replace(RULES, max_words=4)
    (found,) = write(features=FEATURES[:1], rules=rules, beam_size=WIDE, min_length=2)
    assert [caption.ids for caption in found] == [ids for _, ids in tree(5, 0) if len(ids) >= 2]


def test_a_beginning_may_break_other_rules_and_has_probabilities():
    """It is what the user wants; what follows keeps to the rules."""
    beginning = [WORDS[0], WORDS[0], V.unk]
    rules = replace(RULES, prefix=beginning)
    p = decoder()
    for feature, captions in zip(
        FEATURES, write(p, rules=rules, beam_size=2, no_repeat_ngram_size=1), strict=True
    ):
        for caption in captions:
            assert caption.ids[:3] == beginning and not repeats(caption.ids[2:], 1)
            steps = distributions(p, feature, beginning[:2])
            expected = [step[word] for step, word in zip(steps, beginning, strict=True)]
            numpy.testing.assert_allclose(caption.log_probabilities[:3], expected, rtol=1e-12)
    whole = replace(rules, max_words=3)
    assert texts(write(rules=whole, beam_size=2)) == [[beginning]] * 9


# Company


@pytest.mark.parametrize("together", [1, 3, 8, 1000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_company_and_threads_change_no_caption(monkeypatch, together, threads):
    """Alone, in small groups, over threads: the same captions, and, but for the last bits, the
    same scores. Drawn ones too: each has random numbers of its own."""
    many = numpy.random.default_rng(3).normal(size=(30, WIDTH))

    def all_ways():
        rng = numpy.random.default_rng(0)
        hows = (
            {"beams": 1},
            {"beams": 3, "no_repeat_ngram_size": 2},
            {"temperature": 1.0, "count": 2},
        )
        return [write(features=many, rng=rng, **how) for how in hows]

    expected = all_ways()
    monkeypatch.setattr(module, "TOGETHER", together)
    monkeypatch.setattr(module, "_blas_threads", lambda: threads)
    found = all_ways()
    assert [*map(texts, found)] == [*map(texts, expected)]
    scores, wanted = (
        [c.score for way in ways for captions in way for c in captions]
        for ways in (found, expected)
    )
    numpy.testing.assert_allclose(scores, wanted, rtol=1e-12)


def test_order_changes_no_caption():
    assert texts(write(features=FEATURES[::-1])) == texts(write())[::-1]


@pytest.mark.parametrize("beams", [1, 3])
def test_float32_scores_agree_to_1e_5(beams):
    """With float64, and alone with in company, for the words of each caption."""
    together = write(decoder(dtype="float32"), beam_size=beams)
    alone = [
        captions
        for feature in FEATURES
        for captions in write(decoder(dtype="float32"), feature[None], beam_size=beams)
    ]
    exact = write(beam_size=beams)
    for a, b, c in zip(together, alone, exact, strict=True):
        numpy.testing.assert_allclose(
            [[x.score for x in found] for found in (a, b)], [[x.score for x in c]] * 2, atol=1e-5
        )


# Drawing


def test_drawn_captions_come_as_often_as_they_are_likely():
    """Whole captions of one picture, 20,000 times: chi-square with 20 degrees of freedom over all
    captions of two words or less; 45.3 is exceeded once in 1,000 times."""
    p, rules = decoder(), replace(RULES, max_words=2)
    p["token_logits"] *= 0.1  # milder opinions: each caption is expected
    (captions,) = write(
        p, FEATURES[:1], rules, 20_000, numpy.random.default_rng(0), temperature=1.0
    )
    expected = {}
    step = distributions(p, FEATURES[0], [])[0]
    allowed = [*WORDS, V.end]
    first = numpy.exp(step[allowed]) / numpy.exp(step[allowed]).sum()
    for word, share in zip(allowed, first, strict=True):
        if word == V.end:
            expected[()] = share
            continue
        step = distributions(p, FEATURES[0], [word])[1]
        second = numpy.exp(step[allowed]) / numpy.exp(step[allowed]).sum()
        for follower, part in zip(allowed, second, strict=True):
            ids = (word,) if follower == V.end else (word, follower)
            expected[ids] = share * part
    counts = dict.fromkeys(expected, 0)
    for caption in captions:
        counts[tuple(caption.ids)] += 1
    assert len(expected) == 21 and min(expected.values()) > 10 / 20_000
    found, wanted = (numpy.array([d[ids] for ids in expected]) for d in (counts, expected))
    assert ((found - 20_000 * wanted) ** 2 / (20_000 * wanted)).sum() < 45.3


def test_the_same_seed_draws_the_same():
    def drawn(seed):
        return texts(write(temperature=1.0, rng=numpy.random.default_rng(seed), count=3))

    assert drawn(1) == drawn(1) != drawn(2)
    assert all(len(captions) == 3 for captions in drawn(1))


@pytest.mark.parametrize("how", [{"temperature": 1e-300}, {"temperature": 1.0, "top_k": 1}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_careful_draw_is_greedy(how, dtype):
    """And overflows nothing: float32 knows no 1e-300."""
    p = decoder(dtype=dtype)
    with numpy.errstate(over="raise", invalid="raise", divide="raise"):
        drawn = write(p, rng=numpy.random.default_rng(0), **how)
    assert texts(drawn) == texts(write(p, beam_size=1))


def test_drawing_needs_a_random_generator():
    with pytest.raises(ValueError, match="needs a random generator"):
        write(temperature=1.0)


def test_count_widens_the_beam():
    assert write(beam_size=2, count=5) == write(beam_size=5)
    assert write(beam_size=5, count=2) == write(beam_size=5)


# Ensembles


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_decoder_with_itself_changes_nothing(size):
    p = decoder()
    for writing in GREEDY, GenerationConfig(beam_size=4, no_repeat_ngram_size=2):
        found = beam_search([p] * size, [FEATURES] * size, RULES, writing)
        expected = beam_search([p], [FEATURES], RULES, writing)
        assert texts(found) == texts(expected)
        for ours, theirs in zip(sum(found, []), sum(expected, []), strict=True):
            numpy.testing.assert_allclose(
                ours.log_probabilities, theirs.log_probabilities, rtol=1e-12
            )


def test_decoders_write_by_the_mean_of_their_log_probabilities():
    """Normalised again; they may have other sizes, and see other features of the same pictures."""
    other = {name: width + 3 for name, width in SHAPE.items()}
    decoders = [decoder(0), decoder(1, shape=other), decoder(2, shape=OPTIONS)]
    seen = [FEATURES, -FEATURES, 2 * FEATURES]
    found = beam_search(decoders, seen, RULES, GenerationConfig(beam_size=3))
    assert found != beam_search(decoders, seen[::-1], RULES, GenerationConfig(beam_size=3))
    for n, captions in enumerate(found):
        for caption in captions:
            ids = [*caption.ids, V.end][: len(caption.log_probabilities)]
            each = [
                distributions(p, features[n], ids[:-1])
                for p, features in zip(decoders, seen, strict=True)
            ]
            for step, (word, gain) in enumerate(zip(ids, caption.log_probabilities, strict=True)):
                mean = sum(steps[step] for steps in each) / 3
                expected = mean[word] - numpy.log(numpy.exp(mean).sum())
                assert gain == pytest.approx(expected, rel=1e-12)


def test_the_order_of_decoders_does_not_matter():
    decoders, seen = [decoder(0), decoder(1)], [FEATURES, -FEATURES]
    assert texts(beam_search(decoders, seen, RULES, GenerationConfig())) == texts(
        beam_search(decoders[::-1], seen[::-1], RULES, GenerationConfig())
    )


# Settings


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"beams": 0}, "--beam-size must be"),
        ({"beams": 101}, "--beam-size must be"),
        ({"alpha": -0.1}, "--length-penalty must be"),
        ({"alpha": float("nan")}, "--length-penalty must be"),
        ({"alpha": float("inf")}, "--length-penalty must be"),
        ({"temperature": -1.0}, "--temperature must be"),
        ({"temperature": float("nan")}, "--temperature must be"),
        ({"temperature": float("inf")}, "--temperature must be"),
        ({"temperature": 1.0, "top_k": -1}, "--top-k must be"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p must be"),
        ({"temperature": 1.0, "top_p": 1.1}, "--top-p must be"),
        ({"no_repeat_ngram_size": -1}, "--no-repeat-ngram-size must be"),
        ({"min_length": -1}, "--min-length must be"),
        ({"top_k": 5}, "give a --temperature"),
        ({"top_p": 0.5}, "give a --temperature"),
    ],
)
def test_senseless_settings(how, reason):
    with pytest.raises(UserError, match=reason) as caught:
        GenerationConfig(**how).check()
    assert "\n" not in str(caught.value)


def test_the_defaults_make_sense():
    GenerationConfig().check()
    GREEDY.check()
