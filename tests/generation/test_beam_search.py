"""Beam search finds the best captions within the constraints, whatever is in the batch."""

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
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.nn.dense import affine
from minicap.utils.errors import UserError
from tests.tiny import SHAPE, WIDTH, model

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH))
V = model().vocabulary
WORDS = [V.ids[word] for word in ("a", "blue", "dog", "red")]
CONSTRAINTS = Constraints(V.start, V.end, (V.pad, V.unk), max_words=6)
WIDE = 400  # more captions than there are of four words or less: 1 + 4 + 16 + 64 + 256


def decoder(seed=5, dtype="float64", shape=SHAPE):
    """A decoder with distinct preferences, to which #END# is not a rare word."""
    config = DecoderConfig(**shape)
    p = initial_parameters(config, config.shapes(WIDTH, len(V)), numpy.random.default_rng(seed))
    p.flat *= 4
    p["token_logits"][-1, V.end] = 1.5
    return Decoder(config, {name: array.astype(dtype) for name, array in p.items()})


def generate(of=None, features=FEATURES, constraints=CONSTRAINTS, count=1, rng=None, **options):
    """All captions that one decoder generates for each image."""
    of = of or decoder()
    features = features.astype(of.parameters["lstm"].dtype)
    return beam_search([of], [features], constraints, GenerationConfig(**options), count, rng)


def texts(found):
    """The words alone."""
    return [[caption.ids for caption in captions] for captions in found]


def distributions(of, feature, ids):
    """The log-probabilities (V,) after #START# and after each word, one step at a time."""
    state, found = of.initial_state(feature[None]), []
    for word in (V.start, *ids):
        y, state = of.step(numpy.array([word]), state)
        logits = affine(y, of.parameters["token_logits"])[0]
        top = logits.max()
        found.append(logits - top - numpy.log(numpy.exp(logits - top).sum()))
    return found


@functools.cache
def tree(seed, image, length_penalty=GenerationConfig.length_penalty):
    """Every caption of up to four words with its score, best first, without a search."""
    of, scored = decoder(seed), []
    for length in range(5):
        for ids in itertools.product(WORDS, repeat=length):
            words = [*ids, V.end][:4]
            steps = distributions(of, FEATURES[image], words[:-1])
            total = sum(step[word] for step, word in zip(steps, words, strict=True))
            scored.append((total / len(words) ** length_penalty, list(ids)))
    return sorted(scored, reverse=True)


def repeats(ids, n):
    """Whether an n-gram occurs twice."""
    grams = [tuple(ids[k : k + n]) for k in range(len(ids) - n + 1)]
    return len(set(grams)) < len(grams)


# Greedy


def test_a_beam_of_one_is_greedy():
    """The likeliest allowed word at each step, in plain Python."""
    of = decoder()
    found = [captions[0].ids for captions in generate(of, beam_size=1)]
    for feature, ids in zip(FEATURES, found, strict=True):
        expected = []
        while len(expected) < 6:
            step = distributions(of, feature, expected)[-1]
            word = max([*WORDS, V.end], key=lambda n: step[n])
            if word == V.end:
                break
            expected.append(word)
        assert ids == expected
    lengths = {len(ids) for ids in found}
    assert 6 in lengths and len(lengths) > 1  # some are cut, some end with #END#


def test_the_length_penalty_does_not_change_greedy_captions():
    assert texts(generate(beam_size=1, length_penalty=0.0)) == texts(
        generate(beam_size=1, length_penalty=3.0)
    )


# Beam search


def test_a_wide_beam_is_the_whole_tree():
    assert_whole_tree(length_penalty=0.7)


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.5])
def test_a_wide_beam_is_the_whole_tree_with_any_length_penalty(length_penalty):
    """It finds all possible captions, in the order of their scores."""
    assert_whole_tree(length_penalty)


def assert_whole_tree(length_penalty):
    constraints = replace(CONSTRAINTS, max_words=4)
    for seed in range(3):
        (found,) = generate(
            decoder(seed), FEATURES[:1], constraints, beam_size=WIDE, length_penalty=length_penalty
        )
        expected = tree(seed, 0, length_penalty)
        assert len(found) == len(expected) == 341
        # pytest would take minutes to compare lists this long for a message.
        same = [caption.ids for caption in found] == [ids for _, ids in expected]
        assert same, f"another order, seed {seed}"
        scores = [caption.score for caption in found]
        numpy.testing.assert_allclose(scores, [score for score, _ in expected], rtol=1e-12)


def test_a_higher_length_penalty_prefers_longer_captions():
    """Otherwise the test above would not cover it."""
    constraints = replace(CONSTRAINTS, max_words=4)
    short, long = (
        generate(constraints=constraints, beam_size=WIDE, length_penalty=length_penalty)
        for length_penalty in (0.0, 2.5)
    )
    lengths = [[len(captions[0].ids) for captions in found] for found in (short, long)]
    assert numpy.mean(lengths[0]) < 2 and numpy.mean(lengths[1]) > 3


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    beam_size=st.integers(1, 6),
    length_penalty=st.sampled_from([0.0, 0.7, 1.0]),
    max_words=st.integers(1, 8),
)
def test_captions_are_distinct_and_best_first(seed, beam_size, length_penalty, max_words):
    """As many as the beam is wide, none too long, and each with the score of its words: one
    log-probability for each, and one for #END# unless the caption was cut."""
    constraints = replace(CONSTRAINTS, max_words=max_words)
    for captions in generate(
        decoder(seed),
        constraints=constraints,
        beam_size=beam_size,
        length_penalty=length_penalty,
    ):
        assert 1 <= len(captions) <= beam_size
        assert len(captions) == beam_size or max_words == 1
        assert len({tuple(caption.ids) for caption in captions}) == len(captions)
        scores = [caption.score for caption in captions]
        assert scores == sorted(scores, reverse=True)
        for caption in captions:
            words = len(caption.log_probabilities)
            assert words == min(len(caption.ids) + 1, max_words)
            assert set(caption.ids) <= set(WORDS)
            assert caption.score == pytest.approx(
                sum(caption.log_probabilities) / words**length_penalty, rel=1e-12
            )


EVERY_STEP = SHAPE | {"image_input": "every_step", "embedding_size": 7}


def assert_scores_are_those_of_training(shape=SHAPE, **options):
    """Decoder.loss of the same ids is the same, to 1e-12, and so is running step by step."""
    of = decoder(shape=shape)
    for feature, captions in zip(
        FEATURES, generate(of, rng=numpy.random.default_rng(0), **options), strict=True
    ):
        for caption in captions:
            ids = [V.start, *caption.ids, V.end][: 1 + len(caption.log_probabilities)]
            batch = pack(feature[None], numpy.array([ids]), numpy.array([len(ids)]))
            loss, _ = of.loss(batch, divisor=1)
            assert -sum(caption.log_probabilities) == pytest.approx(float(loss), rel=1e-12)
            steps = distributions(of, feature, ids[1:-1])
            expected = [step[word] for step, word in zip(steps, ids[1:], strict=True)]
            numpy.testing.assert_allclose(caption.log_probabilities, expected, rtol=1e-12)


def test_scores_of_a_beam_are_those_of_training():
    assert_scores_are_those_of_training(beam_size=4)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 4, "length_penalty": 0.7},
        {"beam_size": 3, "no_repeat_ngram_size": 2, "min_length": 3},
        {"temperature": 1.5, "top_p": 0.9},
        {"beam_size": 4, "shape": EVERY_STEP},
    ],
)
def test_log_probabilities_are_those_of_training(options):
    """Whatever is banned or sampled."""
    assert_scores_are_those_of_training(**options)


def test_finished_hypotheses_do_not_change(monkeypatch):
    """After #END#, no word and no number of a caption changes as long as the beam keeps it."""
    finished, seen_again = {}, 0
    getitem = module.Hypotheses.__getitem__

    def watched(self, rows):
        nonlocal seen_again
        selected = getitem(self, rows)
        for row in numpy.flatnonzero(selected.finished):
            words = selected.words[row].tolist()
            key = selected.image[row], *words[: words.index(V.end)]
            now = selected.length[row], words, selected.log_probabilities[row].tolist()
            seen_again += key in finished
            assert finished.setdefault(key, now) == now
        return selected

    monkeypatch.setattr(module.Hypotheses, "__getitem__", watched)
    found = generate(beam_size=4)
    assert seen_again > 20
    assert all(V.end not in caption.ids for captions in found for caption in captions)


def test_finished_captions_leave_the_batch(monkeypatch):
    """Each step runs on the unfinished captions only."""
    rows = []
    step = Decoder.step

    def counted(self, words, state):
        rows.append(len(words))
        return step(self, words, state)

    monkeypatch.setattr(Decoder, "step", counted)
    found = generate(beam_size=1)
    lengths = [len(captions[0].log_probabilities) for captions in found]
    assert rows == [sum(length > step for length in lengths) for step in range(6)]
    assert rows[-1] < rows[0]


# Constraints


@pytest.mark.parametrize("max_words", [0, 1, 3])
def test_no_caption_is_longer_than_max_words(max_words):
    constraints = replace(CONSTRAINTS, max_words=max_words)
    found = generate(constraints=constraints, beam_size=1)
    assert texts(found) == [[captions[0].ids[:max_words]] for captions in generate(beam_size=1)]
    for captions in generate(constraints=constraints):
        assert max(len(caption.ids) for caption in captions) == max_words


def test_banned_words_are_never_generated():
    """Neither by a search nor by sampling at a temperature where all words are equally likely."""
    many = numpy.repeat(FEATURES, 50, axis=0)
    samples = generate(features=many, temperature=1000.0, rng=numpy.random.default_rng(0))
    assert {word for (caption,) in samples for word in caption.ids} == set(WORDS)
    favourite = max((captions[0].ids for captions in generate(beam_size=1)), key=len)[0]
    constraints = replace(CONSTRAINTS, banned=(*CONSTRAINTS.banned, favourite))
    for options in {"beam_size": 1}, {"beam_size": 4}, {"temperature": 1.0}:
        found = generate(constraints=constraints, rng=numpy.random.default_rng(0), **options)
        assert favourite not in {word for captions in found for c in captions for word in c.ids}


def test_there_is_always_a_caption():
    """However unlikely it is; without words if every word is banned."""
    of = decoder()
    of.parameters["token_logits"][-1, [V.pad, V.unk, V.start]] += 1000
    assert texts(generate(of, beam_size=1)) == texts(generate(beam_size=1))
    nothing = replace(CONSTRAINTS, banned=(*CONSTRAINTS.banned, *WORDS))
    for options in {}, {"beam_size": 1}, {"temperature": 1.0, "top_p": 0.5}:
        rng = numpy.random.default_rng(0)
        for captions in generate(constraints=nothing, rng=rng, **options):
            assert captions[0].ids == [] and len(captions[0].log_probabilities) == 1
        for captions in generate(constraints=nothing, rng=rng, min_length=2, **options):
            assert captions == [module.Caption([], [], 0.0)]
    # There are only four words.
    for (caption,) in generate(beam_size=1, no_repeat_ngram_size=1, min_length=6):
        assert sorted(caption.ids) == WORDS and len(caption.log_probabilities) == 4
    assert generate(features=FEATURES[:0]) == []


@pytest.mark.parametrize(
    ("options", "prefix", "allowed"),
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
def test_constraints_leave_the_best_of_what_they_allow(options, prefix, allowed):
    """A beam as wide as the tree finds the best allowed caption of six images, some of which would
    have another one otherwise. Narrow beams and samples keep to the constraints too."""
    constraints, otherwise = replace(CONSTRAINTS, max_words=4, prefix=prefix), 0
    for seed in 0, 3:
        of = decoder(seed)
        found = generate(of, FEATURES[:3], constraints, beam_size=WIDE, **options)
        for image, (best, *_) in enumerate(found):
            all_captions = [ids for _, ids in tree(seed, image)]
            assert best.ids == next(filter(allowed, all_captions))
            otherwise += best.ids != all_captions[0]
        long = replace(constraints, max_words=12)
        for more in {"beam_size": 1}, {"beam_size": 3}, {"temperature": 1.0}:
            rng = numpy.random.default_rng(seed)
            for captions in generate(of, constraints=long, rng=rng, **more, **options):
                assert all(allowed(caption.ids) for caption in captions)
    assert otherwise


def test_new_ngrams_are_not_banned():
    """The wide beam has every caption of five words in which no trigram occurs twice."""
    constraints = replace(CONSTRAINTS, max_words=5)
    (found,) = generate(
        features=FEATURES[:1],
        constraints=constraints,
        beam_size=2000,
        no_repeat_ngram_size=3,
        min_length=5,
    )
    generated = {tuple(caption.ids) for caption in found}
    assert generated == {ids for ids in itertools.product(WORDS, repeat=5) if not repeats(ids, 3)}


def test_min_length_bans_shorter_captions_only():
    constraints = replace(CONSTRAINTS, max_words=4)
    (found,) = generate(
        features=FEATURES[:1], constraints=constraints, beam_size=WIDE, min_length=2
    )
    assert [caption.ids for caption in found] == [ids for _, ids in tree(5, 0) if len(ids) >= 2]


def test_a_prefix_overrides_other_constraints_and_has_log_probabilities():
    """The words after it keep to the constraints."""
    prefix = [WORDS[0], WORDS[0], V.unk]
    constraints = replace(CONSTRAINTS, prefix=prefix)
    of = decoder()
    for feature, captions in zip(
        FEATURES,
        generate(of, constraints=constraints, beam_size=2, no_repeat_ngram_size=1),
        strict=True,
    ):
        for caption in captions:
            assert caption.ids[:3] == prefix and not repeats(caption.ids[2:], 1)
            steps = distributions(of, feature, prefix[:2])
            expected = [step[word] for step, word in zip(steps, prefix, strict=True)]
            numpy.testing.assert_allclose(caption.log_probabilities[:3], expected, rtol=1e-12)
    whole = replace(constraints, max_words=3)
    assert texts(generate(constraints=whole, beam_size=2)) == [[prefix]] * 9


# Batches


@pytest.mark.parametrize("group", [1, 3, 8, 1000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_groups_and_threads_change_no_caption(monkeypatch, group, threads):
    """Alone, in small groups, on several threads: the same captions and, except for the last bits,
    the same scores. Samples too: each image has its own random numbers."""
    many = numpy.random.default_rng(3).normal(size=(30, WIDTH))

    def all_ways():
        rng = numpy.random.default_rng(0)
        ways = (
            {"beam_size": 1},
            {"beam_size": 3, "no_repeat_ngram_size": 2},
            {"temperature": 1.0, "count": 2},
        )
        return [generate(features=many, rng=rng, **options) for options in ways]

    expected = all_ways()
    monkeypatch.setattr(module, "GROUP", group)
    monkeypatch.setattr(module, "_blas_threads", lambda: threads)
    found = all_ways()
    assert [*map(texts, found)] == [*map(texts, expected)]
    scores, expected_scores = (
        [c.score for way in ways for captions in way for c in captions]
        for ways in (found, expected)
    )
    numpy.testing.assert_allclose(scores, expected_scores, rtol=1e-12)


def test_order_changes_no_caption():
    assert texts(generate(features=FEATURES[::-1])) == texts(generate())[::-1]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_float32_scores_agree_to_1e_5(beam_size):
    """With float64, and with those of images alone."""
    together = generate(decoder(dtype="float32"), beam_size=beam_size)
    alone = [
        captions
        for feature in FEATURES
        for captions in generate(decoder(dtype="float32"), feature[None], beam_size=beam_size)
    ]
    exact = generate(beam_size=beam_size)
    for a, b, c in zip(together, alone, exact, strict=True):
        numpy.testing.assert_allclose(
            [[x.score for x in found] for found in (a, b)], [[x.score for x in c]] * 2, atol=1e-5
        )


# Sampling


def test_samples_follow_the_model_s_distribution():
    """20,000 captions of one image: chi-square with 20 degrees of freedom over all captions of up
    to two words; 45.3 is exceeded once in 1,000 times."""
    of, constraints = decoder(), replace(CONSTRAINTS, max_words=2)
    of.parameters["token_logits"] *= 0.1  # makes every caption likely enough
    (captions,) = generate(
        of, FEATURES[:1], constraints, 20_000, numpy.random.default_rng(0), temperature=1.0
    )
    expected = {}
    step = distributions(of, FEATURES[0], [])[0]
    allowed = [*WORDS, V.end]
    first = numpy.exp(step[allowed]) / numpy.exp(step[allowed]).sum()
    for word, p_first in zip(allowed, first, strict=True):
        if word == V.end:
            expected[()] = p_first
            continue
        step = distributions(of, FEATURES[0], [word])[1]
        second = numpy.exp(step[allowed]) / numpy.exp(step[allowed]).sum()
        for follower, p_second in zip(allowed, second, strict=True):
            ids = (word,) if follower == V.end else (word, follower)
            expected[ids] = p_first * p_second
    counts = dict.fromkeys(expected, 0)
    for caption in captions:
        counts[tuple(caption.ids)] += 1
    assert len(expected) == 21 and min(expected.values()) > 10 / 20_000
    found, wanted = (numpy.array([d[ids] for ids in expected]) for d in (counts, expected))
    assert ((found - 20_000 * wanted) ** 2 / (20_000 * wanted)).sum() < 45.3


def test_the_same_seed_gives_the_same_samples():
    def samples(seed):
        return texts(generate(temperature=1.0, rng=numpy.random.default_rng(seed), count=3))

    assert samples(1) == samples(1) != samples(2)
    assert all(len(captions) == 3 for captions in samples(1))


@pytest.mark.parametrize("options", [{"temperature": 1e-300}, {"temperature": 1.0, "top_k": 1}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sampling_from_one_word_is_greedy(options, dtype):
    """Without overflow, although float32 has no 1e-300."""
    of = decoder(dtype=dtype)
    with numpy.errstate(over="raise", invalid="raise", divide="raise"):
        samples = generate(of, rng=numpy.random.default_rng(0), **options)
    assert texts(samples) == texts(generate(of, beam_size=1))


def test_sampling_needs_a_random_number_generator():
    with pytest.raises(ValueError, match="needs a random number generator"):
        generate(temperature=1.0)


def test_count_widens_the_beam():
    assert generate(beam_size=2, count=5) == generate(beam_size=5)
    assert generate(beam_size=5, count=2) == generate(beam_size=5)


# Ensembles


@pytest.mark.parametrize("size", [1, 2, 3])
def test_an_ensemble_of_equal_decoders_is_that_decoder(size):
    of = decoder()
    for config in GREEDY, GenerationConfig(beam_size=4, no_repeat_ngram_size=2):
        found = beam_search([of] * size, [FEATURES] * size, CONSTRAINTS, config)
        expected = beam_search([of], [FEATURES], CONSTRAINTS, config)
        assert texts(found) == texts(expected)
        for ours, theirs in zip(sum(found, []), sum(expected, []), strict=True):
            numpy.testing.assert_allclose(
                ours.log_probabilities, theirs.log_probabilities, rtol=1e-12
            )


def test_an_ensemble_averages_log_probabilities():
    """Renormalised. Its decoders may have different sizes and features of the same images."""
    other = {name: width + 3 for name, width in SHAPE.items()}
    decoders = [decoder(0), decoder(1, shape=other), decoder(2, shape=EVERY_STEP)]
    inputs = [FEATURES, -FEATURES, 2 * FEATURES]
    config = GenerationConfig(beam_size=3)
    found = beam_search(decoders, inputs, CONSTRAINTS, config)
    assert found != beam_search(decoders, inputs[::-1], CONSTRAINTS, config)
    for n, captions in enumerate(found):
        for caption in captions:
            ids = [*caption.ids, V.end][: len(caption.log_probabilities)]
            each = [
                distributions(of, features[n], ids[:-1])
                for of, features in zip(decoders, inputs, strict=True)
            ]
            for step, (word, found_one) in enumerate(
                zip(ids, caption.log_probabilities, strict=True)
            ):
                mean = sum(steps[step] for steps in each) / 3
                expected = mean[word] - numpy.log(numpy.exp(mean).sum())
                assert found_one == pytest.approx(expected, rel=1e-12)


def test_the_order_of_decoders_does_not_matter():
    decoders, inputs = [decoder(0), decoder(1)], [FEATURES, -FEATURES]
    assert texts(beam_search(decoders, inputs, CONSTRAINTS, GenerationConfig())) == texts(
        beam_search(decoders[::-1], inputs[::-1], CONSTRAINTS, GenerationConfig())
    )


# Options


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beam_size": 0}, "--beam-size must be"),
        ({"beam_size": 101}, "--beam-size must be"),
        ({"length_penalty": -0.1}, "--length-penalty must be"),
        ({"length_penalty": float("nan")}, "--length-penalty must be"),
        ({"length_penalty": float("inf")}, "--length-penalty must be"),
        ({"temperature": -1.0}, "--temperature must be"),
        ({"temperature": float("nan")}, "--temperature must be"),
        ({"temperature": float("inf")}, "--temperature must be"),
        ({"temperature": 1.0, "top_k": -1}, "--top-k must be"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p must be"),
        ({"temperature": 1.0, "top_p": 1.1}, "--top-p must be"),
        ({"no_repeat_ngram_size": -1}, "--no-repeat-ngram-size must be"),
        ({"min_length": -1}, "--min-length must be"),
        ({"top_k": 5}, "add --temperature"),
        ({"top_p": 0.5}, "add --temperature"),
    ],
)
def test_options_out_of_range(options, reason):
    with pytest.raises(UserError, match=reason) as caught:
        GenerationConfig(**options).check()
    assert "\n" not in str(caught.value)


def test_the_defaults_are_valid():
    GenerationConfig().check()
    GREEDY.check()
