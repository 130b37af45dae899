"""An answer does not depend on the requests that share its batch."""

from dataclasses import replace

import numpy
import pytest

from minicap.captioner import Captioner
from minicap.generation.config import BEAM, GenerationConfig
from minicap.server.answers import Answers, Request
from minicap.server.question import Question
from minicap.utils.errors import UserError
from tests.tiny import ATTENTION, model

PIXELS = numpy.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype="uint8")
QUESTIONS = [
    Question(),
    Question(replace(BEAM, beam_size=3), count=2, tree=True, cells="auto"),
    Question(GenerationConfig(temperature=1.5), count=3, seed=4),
    Question(GenerationConfig(beam_size=1), candidates=3),
    Question(replace(BEAM, prefix="a red")),
    Question(cells="2,5"),
    Question(GenerationConfig(temperature=1.5), count=3, seed=5),
    Question(replace(BEAM, prefix="nonsense")),
    Question(cells="999"),
]


@pytest.fixture(scope="module")
def answers(captioner):
    return Answers(captioner)


def requests():
    return [Request(question, pixels) for question, pixels in zip(QUESTIONS, PIXELS, strict=True)]


def close(a, b):
    """Equal, but for the last bits of numbers."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return abs(a - b) < 1e-4 if isinstance(a, float) else a == b


def test_alone_and_in_a_batch(answers):
    together = answers(requests())
    for request, answer in zip(requests(), together, strict=True):
        (alone,) = answers([request])
        if isinstance(answer, Exception):
            assert str(alone) == str(answer)
        else:
            assert close(alone, answer)


def test_captions_are_the_captioner_s(answers, captioner):
    found = answers(requests()[:2])
    assert found[0]["captions"][0]["caption"] == captioner.caption([PIXELS[0]])[0]
    expected = captioner.generate([PIXELS[1]], QUESTIONS[1].generation, 2)[0]
    for got, want in zip(found[1]["captions"], expected, strict=False):
        assert got["caption"] == captioner.text(want)
        assert got["score"] == pytest.approx(want.score, abs=1e-5)
        assert got["log_probabilities"] == pytest.approx(want.log_probabilities, abs=1e-5)
        assert len(got["tokens"]) == len(got["log_probabilities"])


def test_candidates_contain_each_token_with_its_probability(answers):
    (answer,) = answers([Request(Question(candidates=20), PIXELS[0])])
    (caption,) = answer["captions"]
    for token, log_probability, candidates in zip(
        caption["tokens"], caption["log_probabilities"], answer["candidates"], strict=True
    ):
        known = {each["token"]: each["log_probability"] for each in candidates}
        assert known[token] == pytest.approx(log_probability, abs=1e-4)
        assert not known.keys() & {"#START#", "#PAD#", "#UNK#"}


def test_what_was_not_asked_is_not_there(answers):
    (answer,) = answers([Request(Question(candidates=0), PIXELS[0])])
    assert answer.keys() == {"captions"}


def test_known_features_are_used_and_new_ones_kept(answers, captioner):
    first, second = Request(Question(), PIXELS[0]), Request(Question(), None)
    (answer,) = answers([first])
    second.features = first.features
    assert first.features.shape == (captioner.encoder.feature_size,)
    assert close(answers([second])[0], answer)


def test_errors_are_the_user_s(answers):
    found = answers(requests())
    assert isinstance(found[7], UserError) and "nonsense" in str(found[7])
    assert isinstance(found[8], UserError) and "cells must be below 8" in str(found[8])


def test_a_model_with_attention_says_where_it_looked(captioner):
    attending = Captioner([model(captioner.encoder.about(), **ATTENTION)], captioner.encoder)
    plain = requests()[3]
    bare = Request(replace(plain.question, candidates=0), plain.pixels)
    with_candidates, without = Answers(attending)([plain, bare])
    tokens = with_candidates["captions"][0]["tokens"]
    weights = numpy.array(with_candidates["attention"])
    assert weights.shape == (len(tokens), 4) and "attention" not in without
    numpy.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-3)
    assert "attention" not in Answers(captioner)([plain])[0]
