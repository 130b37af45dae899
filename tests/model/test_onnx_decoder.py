"""The decoder as ONNX: its numbers are minicap's, for every recipe."""

import json
from dataclasses import replace

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.model import onnx_decoder
from minicap.model.attending_decoder import make_decoder
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.model.trained_model import Model
from minicap.training.recipes import RECIPES
from minicap.utils.errors import UserError
from tests import tiny

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
FEATURES = 40
ALL = {name: recipe.decoder for name, recipe in RECIPES.items()} | {
    "attend": replace(RECIPES["attend"].decoder, positions=4),
    "no image bottleneck": DecoderConfig(image_bottleneck=0),
    "no logit bottleneck": DecoderConfig(logit_bottleneck=0, image_input="every_step"),
}


def model(config, rotated=False):
    """A model with large random parameters and a scaling that matters."""
    rng = numpy.random.default_rng(3)
    rotation = rng.normal(size=(FEATURES, 12)).astype("float32") / 6 if rotated else None
    scaling = Scaling(
        rng.normal(size=FEATURES).astype("float32"),
        rng.uniform(0.5, 2, FEATURES).astype("float32"),
        rotation,
    )
    vocabulary = Vocabulary([f"word{number}" for number in range(60)])
    shapes = config.shapes(scaling.width, len(vocabulary))
    parameters = initial_parameters(config, shapes, rng)
    parameters.flat *= 3
    return Model(make_decoder(config, parameters), vocabulary, scaling, 12, {"id": "x"})


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_equal_to_minicap(config, rotated):
    made = model(config, rotated)
    start, step = (each.SerializeToString() for each in onnx_decoder.build(made, {}))
    assert onnx_decoder.difference(start, step, made) <= 1e-5
    assert onnx_decoder.difference(start, step, made, rows=1) <= 1e-5


def test_the_check_notices_other_parameters():
    made = model(DecoderConfig())
    start, step = (each.SerializeToString() for each in onnx_decoder.build(made, {}))
    rng = numpy.random.default_rng(0)
    for name, array in made.decoder.parameters.items():
        noise = rng.normal(0, 1e-3, array.shape).astype("float32")
        changed = dict(made.decoder.parameters) | {name: array + noise}
        other = replace(made, decoder=Decoder(made.decoder.config, changed))
        assert onnx_decoder.difference(start, step, other) > 1e-5, name


def test_the_check_notices_a_missing_forget_bias(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_decoder, "FORGET_BIAS", 0.0)
    with pytest.raises(UserError, match="differ from minicap's by .* no file was written"):
        onnx_decoder.export_decoder(tiny.model(), tmp_path / "a.onnx", {})
    assert not [*tmp_path.iterdir()]


def test_metadata(tmp_path):
    made = model(DecoderConfig())
    onnx_decoder.export_decoder(made, tmp_path / "a.onnx", {"beam_size": 4})
    for path in onnx_decoder.paths(tmp_path / "a.onnx"):
        about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        about = {key: json.loads(value) for key, value in about.items()}
        v = made.vocabulary
        assert about["vocabulary"] == v.words and about["tokenizer"] == "course"
        assert about["not_generated"] == [v.start, v.pad, v.unk] and about["end"] == v.end
        assert about["max_words"] == 11 and about["encoder"] == {"id": "x"}
        assert about["generation"] == {"beam_size": 4} and about["format"] == 1


def test_both_files_or_none(tmp_path):
    (tmp_path / "a-step.onnx").mkdir()
    with pytest.raises(UserError, match="not a regular file"):
        onnx_decoder.export_decoder(tiny.model(), tmp_path / "a.onnx", {})
    assert [path.name for path in tmp_path.iterdir()] == ["a-step.onnx"]
