"""When a caption is doubted."""

from dataclasses import replace

import numpy
import pytest

from minicap.model.doubt import Doubt, principal_components
from minicap.model.trained_model import Model
from tests.tiny import WIDTH, model

RNG = numpy.random.default_rng(0)


def test_principal_components():
    """Photos that vary in two directions have no distance, and others have that of the rest."""
    plane = numpy.linalg.qr(RNG.normal(size=(WIDTH, 2)))[0]
    photos = RNG.normal(size=(50, 2)) @ plane.T
    basis = principal_components(photos, 2)
    assert basis.shape == (WIDTH, 2) and basis.dtype == numpy.float16
    doubt = Doubt(0.5, -1.0, basis)
    assert doubt.distance_of(photos[0]) == pytest.approx(0, abs=5e-3)
    other = RNG.normal(size=WIDTH)
    other -= plane @ (plane.T @ other)
    expected = numpy.sqrt(numpy.mean(other**2))
    assert doubt.distance_of(photos[0] + other) == pytest.approx(expected, abs=5e-3)


def test_reasons():
    doubt = Doubt(0.5, -1.0, numpy.eye(WIDTH, 2, dtype="float16"))
    near, far = numpy.zeros(WIDTH), numpy.ones(WIDTH)
    assert doubt.reason(near, [-0.5, -1.4]) == ""
    assert "not sure of these words" in doubt.reason(near, [-0.5, -1.6])
    assert "unlike those" in doubt.reason(far, [-0.5])


def test_limits_are_saved_with_the_model(tmp_path):
    doubt = Doubt(0.5, -1.0, RNG.normal(size=(WIDTH, 2)).astype("float16"))
    replace(model(), doubt=doubt).save(tmp_path / "a.safetensors")
    found = Model.load(tmp_path / "a.safetensors").doubt
    assert (found.distance, found.log_probability) == (0.5, -1.0)
    assert (found.basis == doubt.basis).all()
    model().save(tmp_path / "b.safetensors")
    assert Model.load(tmp_path / "b.safetensors").doubt is None


def test_half_precision_halves_the_file(tmp_path):
    trained = model()
    trained.save(tmp_path / "whole.safetensors")
    trained.save(tmp_path / "half.safetensors", "float16")
    for name, array in Model.load(tmp_path / "half.safetensors").decoder.parameters.items():
        assert array.dtype == numpy.float32
        expected = trained.decoder.parameters[name].astype("float16")
        assert (array == expected.astype("float32")).all()
