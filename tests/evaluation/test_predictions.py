"""Captions of an evaluation set are those the model generates, from features that fit it."""

from dataclasses import replace

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.evaluation.predictions import check_features, predict
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate
from minicap.utils.errors import UserError
from tests import tiny
from tests.evaluation.examples import images

RNG = numpy.random.default_rng(0)


def test_predictions_are_those_of_scaled_features():
    """The model's scaling is applied; candidates and probabilities are those of `generate`."""
    model = tiny.model(dtype="float64")
    mean = numpy.arange(tiny.WIDTH) / 9.0
    model = replace(model, scaling=Scaling(mean, numpy.full(tiny.WIDTH, 0.5)))
    features = numpy.random.default_rng(0).normal(size=(300, tiny.WIDTH))
    predictions = predict([model], images(300, features), GenerationConfig(beam_size=2), 0)
    scaled = (features.astype("float32") - mean) / 2
    expected = generate([model.for_scaled_features()], scaled, GenerationConfig(beam_size=2))
    for mine, theirs in zip(predictions, expected, strict=True):
        assert len(mine) == 2
        for one, other in zip(mine, theirs, strict=True):
            assert one.text == model.vocabulary.decode(other.ids)
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert one.probabilities == pytest.approx(numpy.exp(other.log_probabilities), abs=1e-5)


ENCODER = {"id": "one", "name": "encoder one"}


@pytest.mark.parametrize(
    ("features", "encoder", "line"),
    [
        (None, None, "needs the images' features: name them with --features"),
        (
            numpy.ones((2, 3), "f4"),
            ENCODER,
            "8 features of encoder one .*, but those of encoder one .* are 3",
        ),
        (
            numpy.ones((2, 8), "f4"),
            {"id": "x", "name": "x"},
            "features of the encoder encoder one .*, not on those of x",
        ),
    ],
)
def test_features_of_another_encoder_are_refused(features, encoder, line):
    with pytest.raises(UserError, match=line):
        check_features([tiny.model(ENCODER)], images(2, features, encoder))


def test_uncertainty_about_the_encoder_gives_a_warning():
    features, model = numpy.ones((2, 8), "f4"), [tiny.model(ENCODER)]
    for other, warning in (
        (ENCODER, None),
        ({"id": "y", "name": "y", "float32_id": "one"}, "the same network in another precision"),
        (None, "the features file does not say which encoder"),
    ):
        warnings = check_features(model, images(2, features, other))
        assert len(warnings) == bool(warning) and (warning or "") in str(warnings)
    assert check_features([tiny.model()], images(2, features, None)) == []
