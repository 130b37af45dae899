"""Self-critical training: what a caption is worth, and that its gradient is the reward's."""

import itertools
import math
from dataclasses import replace

import numpy
import pytest

from minicap.data.batches import pack
from minicap.model.decoder import caption_loss
from minicap.model.gradient_cases import decoder_case
from minicap.nn.gradient_check import COMPLEX_STEP_TOLERANCE, check_loss, complex_step, disagreement
from minicap.training.self_critical import CiderD, Critic, as_ids, runs, sentence_bleu
from tests.checks import assert_small
from tests.tiny import dataset, model, recipe

REFERENCES = [
    ["a dog runs on the grass", "a brown dog is running", "the dog runs"],
    ["two men on a red boat", "men fish from a boat"],
    ["a child", "a small child eats a red apple on the grass", "child with an apple", "a child"],
]
WRITTEN = ["a dog runs on the the grass", "a red boat", "two men"]


def numbered(captions):
    """Words as numbers, the same for the same words in all calls."""
    return [[sum(map(ord, word)) for word in text.split()] for text in captions]


def test_cider_is_pycocoevalcap_s():
    """To 1e-9, for each picture, with as many references as there happen to be."""
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason="the oracle needs metrics")
    references = dict(enumerate(REFERENCES))
    _, expected = cider.Cider().compute_score(references, {n: [w] for n, w in enumerate(WRITTEN)})
    ours = CiderD([numbered(some) for some in REFERENCES])
    found = [ours(n, ids) for n, ids in enumerate(numbered(WRITTEN))]
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert min(found) < 0.01 < 1 < max(found)


def test_a_caption_that_says_nothing_is_worth_nothing():
    ours = CiderD([numbered(some) for some in REFERENCES])
    assert ours(0, []) == 0 and ours(1, [10**6]) == 0


def test_bleu_by_hand():
    """ "a dog runs on the the grass" against "a dog runs on the grass": 6 of 7 words, 5 of 6 pairs,
    3 of 5 runs of three, 2 of 4 runs of four; longer than the reference, so no penalty."""
    written, reference = numbered([WRITTEN[0], REFERENCES[0][0]])
    found = sentence_bleu(written, [runs(reference)], [6])
    parts = [(6, 7), (5, 6), (3, 5), (2, 4)]
    expected = math.prod((hit + 0.01) / (of + 0.01) for hit, of in parts) ** 0.25
    assert found == pytest.approx(expected, rel=1e-12)
    short = sentence_bleu(reference[:3], [runs(reference)], [6])
    assert short == pytest.approx(math.exp(1 - 6 / 3) * (0.01 / 0.01) ** 0.25, rel=1e-12)


def test_unknown_words_keep_their_place_and_match_nothing(tmp_path):
    data = dataset(tmp_path, recipe(min_count=6))
    ids = as_ids(data.splits["train"], data.vocabulary, end=True)
    texts = data.splits["train"].captions
    v = data.vocabulary
    assert [len(some) for some in ids] == [len(some) for some in texts]
    flat = [number for some in ids for caption in some for number in caption]
    assert min(flat) < 0 and all(caption[-1] == v.end for some in ids for caption in some)
    first = ids[0][0]
    assert first[0] == v.ids["a"] and v.unk not in flat


@pytest.mark.gradcheck
def test_complex_step_of_weighted_words():
    """caption_loss with a weight, also a negative one, for each caption."""
    rng = numpy.random.default_rng(0)
    p, batch, masks = decoder_case(rng, steps=20)
    weights = rng.standard_normal(len(batch.features))[batch.captions]
    batch = replace(batch, weights=weights)
    errors = check_loss(lambda p: caption_loss(p, batch, 3.0, masks), p, rng)
    assert_small(errors, COMPLEX_STEP_TOLERANCE)


LONGEST = 2  # words, #END# among them


def every_caption(v):
    """All captions of LONGEST ids or less that a model of this vocabulary can draw."""
    words = [n for n in range(len(v)) if n not in (v.pad, v.start, v.end)]
    ended = [[*some, v.end] for n in range(LONGEST) for some in itertools.product(words, repeat=n)]
    return ended + [list(some) for some in itertools.product(words, repeat=LONGEST)]


@pytest.mark.gradcheck
def test_the_mean_gradient_is_that_of_the_expected_reward():
    """Exactly, on a toy: over all pairs of captions that can be drawn, weighed by how likely they
    are, against the complex step of the expected reward, a sum over all captions."""
    m = model(dtype="float64")
    v, rng = m.vocabulary, numpy.random.default_rng(0)
    p = dict(m.parameters)
    p["token_logits"][-1, [v.pad, v.start]] = -1e4  # not drawn, so without any probability
    features, captions = rng.standard_normal((1, 8)), every_caption(v)
    worth = rng.uniform(size=len(captions))

    def log_probabilities(p):
        """Of each caption, by its loss."""
        ids = [numpy.array([[v.start, *caption]]) for caption in captions]
        return [-caption_loss(p, pack(features, i, numpy.array([i.size])), 1)[0] for i in ids]

    p_each = numpy.exp(log_probabilities(p))
    assert p_each.sum() == pytest.approx(1, rel=1e-12)
    gradient = {name: numpy.zeros_like(x) for name, x in p.items()}
    for (a, pa, ra), (b, pb, rb) in itertools.product(
        zip(captions, p_each, worth, strict=True), repeat=2
    ):
        ids = numpy.full((2, LONGEST + 1), v.pad)
        ids[:, 0] = v.start
        ids[0, 1 : len(a) + 1], ids[1, 1 : len(b) + 1] = a, b
        lengths = numpy.array([len(a) + 1, len(b) + 1])
        advantages = numpy.array([ra - rb, rb - ra])
        batch = pack(features[[0, 0]], ids, lengths, advantages)
        one = {name: numpy.empty_like(x) for name, x in p.items()}
        caption_loss(p, batch, 2)[1](one)
        for name, x in one.items():
            gradient[name] += pa * pb * x
    for name, x in p.items():
        direction = rng.standard_normal(x.shape)

        def expected_reward(x, name=name):
            return numpy.exp(log_probabilities({**p, name: x})) @ worth

        derivative = -float(complex_step(expected_reward, x, direction))
        assert disagreement(derivative, gradient[name], direction) < 1e-12, name


def test_drawn_captions_become_a_batch(tmp_path):
    """Each photo's advantages add up to nothing; what was drawn is what is learned."""
    data = dataset(tmp_path)
    train, v = data.splits["train"], data.vocabulary
    m = model()
    critic = Critic(train, v, max_length=5, samples=3, bleu=0.5)
    shape = replace(m.sizes, vocabulary=len(v))
    from minicap.model.initial import initialise

    p = initialise(shape, numpy.random.default_rng(0))
    photos = numpy.array([2, 0])
    batch, rewards = critic.batch(p, train.features[photos], photos, numpy.random.default_rng(0))
    assert rewards.shape == (2, 3) and batch.counts["captions"] == 6
    first = batch.weights[:6].astype(float)  # of each caption's first word
    by_photo = {tuple(f): [] for f in batch.features.tolist()}
    for feature, weight in zip(batch.features.tolist(), first, strict=True):
        by_photo[tuple(feature)].append(weight)
    for row, photo in enumerate(photos):
        found = sorted(by_photo[tuple(train.features[photo].tolist())])
        advantages = (rewards[row] - rewards[row].mean()) * 3 / 2
        numpy.testing.assert_allclose(found, sorted(advantages), rtol=0, atol=1e-6)
        assert abs(sum(found)) < 1e-6
    assert batch.sizes[0] == 6 and len(batch.sizes) <= 4
