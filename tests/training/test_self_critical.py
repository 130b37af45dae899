"""Self-critical training: the rewards, and the gradient of the expected reward."""

import itertools
import math
from dataclasses import replace

import numpy
import pytest

from minicap.data.batches import pack
from minicap.model.decoder import Decoder
from minicap.model.gradient_cases import decoder_case
from minicap.model.initial import initial_parameters
from minicap.nn.gradient_check import (
    COMPLEX_STEP_TOLERANCE,
    check_loss,
    complex_step,
    relative_error,
)
from minicap.training.rewards import CiderD, as_ids, ngrams, sentence_bleu
from minicap.training.self_critical import Critic
from tests.checks import assert_small
from tests.tiny import dataset, model, recipe

REFERENCES = [
    ["a dog runs on the grass", "a brown dog is running", "the dog runs"],
    ["two men on a red boat", "men fish from a boat"],
    ["a child", "a small child eats a red apple on the grass", "child with an apple", "a child"],
]
GENERATED = ["a dog runs on the the grass", "a red boat", "two men"]


def numbered(captions):
    """Words as numbers, the same for the same words in all calls."""
    return [[sum(map(ord, word)) for word in text.split()] for text in captions]


def test_cider_is_pycocoevalcap_s():
    """To 1e-9, for each image, with different numbers of references."""
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason="the oracle needs metrics")
    references = dict(enumerate(REFERENCES))
    generated = {n: [text] for n, text in enumerate(GENERATED)}
    _, expected = cider.Cider().compute_score(references, generated)
    ours = CiderD([numbered(captions) for captions in REFERENCES])
    found = [ours(n, ids) for n, ids in enumerate(numbered(GENERATED))]
    numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert min(found) < 0.01 < 1 < max(found)


def test_a_caption_without_known_words_scores_zero():
    ours = CiderD([numbered(captions) for captions in REFERENCES])
    assert ours(0, []) == 0 and ours(1, [10**6]) == 0


def test_bleu_by_hand():
    """ "a dog runs on the the grass" against "a dog runs on the grass": 6 of 7 words, 5 of 6
    bigrams, 3 of 5 trigrams, 2 of 4 4-grams; longer than the reference, so no penalty."""
    generated, reference = numbered([GENERATED[0], REFERENCES[0][0]])
    found = sentence_bleu(generated, [ngrams(reference)], [6])
    counts = [(6, 7), (5, 6), (3, 5), (2, 4)]
    expected = math.prod((correct + 0.01) / (total + 0.01) for correct, total in counts) ** 0.25
    assert found == pytest.approx(expected, rel=1e-12)
    short = sentence_bleu(reference[:3], [ngrams(reference)], [6])
    assert short == pytest.approx(math.exp(1 - 6 / 3) * (0.01 / 0.01) ** 0.25, rel=1e-12)


def test_unknown_words_keep_their_place_and_match_nothing(tmp_path):
    data = dataset(tmp_path, recipe(min_count=6))
    ids = as_ids(data.splits["train"], data.vocabulary, end=True)
    texts = data.splits["train"].captions
    v = data.vocabulary
    assert [len(captions) for captions in ids] == [len(captions) for captions in texts]
    flat = [number for captions in ids for caption in captions for number in caption]
    assert min(flat) < 0 and all(caption[-1] == v.end for captions in ids for caption in captions)
    first = ids[0][0]
    assert first[0] == v.ids["a"] and v.unk not in flat


@pytest.mark.gradcheck
def test_complex_step_of_weighted_words():
    """The loss with a weight, also a negative one, for each caption."""
    rng = numpy.random.default_rng(0)
    decoder, batch, masks = decoder_case(rng, steps=20)
    weights = rng.standard_normal(len(batch.features))[batch.captions]
    batch = replace(batch, weights=weights)

    def loss(parameters):
        return Decoder(decoder.config, parameters).loss(batch, 3.0, masks)

    assert_small(check_loss(loss, decoder.parameters, rng), COMPLEX_STEP_TOLERANCE)


LONGEST = 2  # words, including #END#


def every_caption(v):
    """All captions of at most LONGEST ids that a model of this vocabulary can sample."""
    words = [n for n in range(len(v)) if n not in (v.pad, v.start, v.end)]
    ended = [[*ids, v.end] for n in range(LONGEST) for ids in itertools.product(words, repeat=n)]
    return ended + [list(ids) for ids in itertools.product(words, repeat=LONGEST)]


@pytest.mark.gradcheck
def test_the_mean_gradient_is_that_of_the_expected_reward():
    """Exactly, on a toy: the mean over all pairs of captions that can be sampled, weighted by their
    probabilities, against the complex step of the expected reward, a sum over all captions."""
    m = model(dtype="float64")
    v, rng = m.vocabulary, numpy.random.default_rng(0)
    p = dict(m.decoder.parameters)
    p["token_logits"][-1, [v.pad, v.start]] = -1e4  # never sampled, so their probability is 0
    features, captions = rng.standard_normal((1, 8)), every_caption(v)
    rewards = rng.uniform(size=len(captions))

    def log_probabilities(p):
        """Of each caption, from its loss."""
        decoder = Decoder(m.decoder.config, p)
        ids = [numpy.array([[v.start, *caption]]) for caption in captions]
        return [-decoder.loss(pack(features, i, numpy.array([i.size])), 1)[0] for i in ids]

    probabilities = numpy.exp(log_probabilities(p))
    assert probabilities.sum() == pytest.approx(1, rel=1e-12)
    gradient = {name: numpy.zeros_like(x) for name, x in p.items()}
    for (a, pa, ra), (b, pb, rb) in itertools.product(
        zip(captions, probabilities, rewards, strict=True), repeat=2
    ):
        ids = numpy.full((2, LONGEST + 1), v.pad)
        ids[:, 0] = v.start
        ids[0, 1 : len(a) + 1], ids[1, 1 : len(b) + 1] = a, b
        lengths = numpy.array([len(a) + 1, len(b) + 1])
        advantages = numpy.array([ra - rb, rb - ra])
        batch = pack(features[[0, 0]], ids, lengths, advantages)
        one = {name: numpy.empty_like(x) for name, x in p.items()}
        Decoder(m.decoder.config, p).loss(batch, 2)[1](one)
        for name, x in one.items():
            gradient[name] += pa * pb * x
    for name, x in p.items():
        direction = rng.standard_normal(x.shape)

        def expected_reward(x, name=name):
            return numpy.exp(log_probabilities({**p, name: x})) @ rewards

        derivative = -float(complex_step(expected_reward, x, direction))
        assert relative_error(derivative, gradient[name], direction) < 1e-12, name


def test_sampled_captions_become_a_batch(tmp_path):
    """The advantages of each image add up to 0, and the batch has the sampled captions."""
    wanted = recipe(max_length=5, samples_per_image=3, bleu_reward=0.5)
    data = dataset(tmp_path)
    train, v = data.splits["train"], data.vocabulary
    critic = Critic(data, wanted.training)
    shapes = wanted.decoder.shapes(data.feature_size, len(v))
    parameters = initial_parameters(wanted.decoder, shapes, numpy.random.default_rng(0))
    decoder = Decoder(wanted.decoder, parameters)
    images = numpy.array([2, 0])
    rng = numpy.random.default_rng(0)
    batch, rewards = critic.batch(decoder, train.features[images], images, rng)
    assert rewards.shape == (2, 3) and batch.counts["captions"] == 6
    first = batch.weights[:6].astype(float)  # of each caption's first word
    by_image = {tuple(f): [] for f in batch.features.tolist()}
    for feature, weight in zip(batch.features.tolist(), first, strict=True):
        by_image[tuple(feature)].append(weight)
    for row, image in enumerate(images):
        found = sorted(by_image[tuple(train.features[image].tolist())])
        advantages = (rewards[row] - rewards[row].mean()) * 3 / 2
        numpy.testing.assert_allclose(found, sorted(advantages), rtol=0, atol=1e-6)
        assert abs(sum(found)) < 1e-6
    assert batch.batch_sizes[0] == 6 and len(batch.batch_sizes) <= 4


def test_unknown_words_do_not_enter_the_vocabulary(tmp_path):
    data = dataset(tmp_path, recipe(min_count=6))
    before = dict(data.vocabulary.ids)
    as_ids(data.splits["train"], data.vocabulary, end=True)
    assert data.vocabulary.ids == before and len(before) == len(data.vocabulary)


def test_the_shorter_of_two_equally_close_lengths_counts():
    """Five words, references of four and six words in either order: no brevity penalty."""
    ids = [1, 2, 3, 4, 5]
    references = [ngrams([1, 2, 3, 4]), ngrams([1, 2, 3, 4, 5, 6])]
    one, other = (sentence_bleu(ids, references[::step], [4, 6][::step]) for step in (1, -1))
    assert one == other == pytest.approx(1, abs=1e-9)
