"""From images to captions, in Python."""

import sys
from dataclasses import replace

import numpy
import pytest

import minicap
from minicap.captioner import Captioner
from minicap.data.features import Scaling
from minicap.generation.config import BEAM, GenerationConfig
from minicap.generation.generate import generate, generate_text, scaled_for
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, model


class Stub:
    """An encoder whose features are the image's own numbers."""

    id, name, feature_size = "stub", "stub encoder", WIDTH
    preprocessing, float32_id = "squeeze-nearest-4", None

    def __init__(self, **changes):
        vars(self).update(changes)

    def about(self):
        names = ("id", "name", "preprocessing", "float32_id")
        return {name: getattr(self, name) for name in names}

    def __call__(self, images):
        return numpy.array(images, "float32").reshape(len(images), WIDTH)


IMAGES = list(numpy.random.default_rng(2).normal(size=(7, 2, 4)))


def test_a_caption_for_each_image_and_the_same_alone():
    captioner = Captioner([model()], Stub())
    captions = captioner.caption(IMAGES)
    assert len(captions) == 7 and len(set(captions)) > 1
    assert [captioner.caption([image])[0] for image in IMAGES] == captions
    assert captioner.caption([]) == []


def test_features_are_scaled_as_in_training():
    mean, scale = numpy.full(WIDTH, 2, "float32"), numpy.full(WIDTH, 3, "float32")
    captioner = Captioner([replace(model(), scaling=Scaling(mean, scale))], Stub())
    features = numpy.reshape(IMAGES, (7, WIDTH)).astype("float32")
    assert numpy.allclose(scaled_for(captioner.models[0], features), (features - 2) * 3)
    assert captioner.caption(IMAGES) == generate_text([model()], (features - 2) * 3, BEAM)
    assert captioner.caption(IMAGES) != Captioner([model()], Stub()).caption(IMAGES)


def test_sampling_is_repeatable_and_temperature_0_is_none():
    captioner = Captioner([model()], Stub())
    samples = [captioner.caption(IMAGES, seed, temperature=2) for seed in (0, 1, 2, 3, 4, 0)]
    assert samples[0] == samples[5] and len(set(map(tuple, samples))) == 5
    assert captioner.caption(IMAGES, 9, temperature=0) == captioner.caption(IMAGES)
    greedy = captioner.caption(IMAGES, beam_size=1)
    assert captioner.caption(IMAGES, 9, temperature=1e-9) == greedy


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_a_temperature_out_of_range(temperature):
    with pytest.raises(UserError, match="temperature must be"):
        Captioner([model()], Stub()).caption(IMAGES, temperature=temperature)


def test_the_highest_temperature_generates_no_special_words():
    captions = Captioner([model()], Stub()).caption(IMAGES, temperature=1000)
    assert not any("#" in caption for caption in captions)


def test_generate_returns_the_captions_of_the_beam():
    captioner = Captioner([model()], Stub())
    found = captioner.generate(IMAGES, GenerationConfig(beam_size=2), count=3)
    assert [captioner.text(some[0]) for some in found] == captioner.caption(IMAGES, beam_size=3)
    assert all(len({captioner.text(caption) for caption in some}) == 3 for some in found)


def test_an_ensemble():
    """Each model scales the features as in its training. All must have been trained on the same
    encoder."""
    scaling = Scaling(numpy.full(WIDTH, 2, "float32"), numpy.full(WIDTH, 3, "float32"))
    both = [model({"id": "stub", "name": "s"}), replace(model(), scaling=scaling)]
    captioner = Captioner(both, Stub())
    features = numpy.reshape(IMAGES, (7, WIDTH)).astype("float32")
    found = captioner.generate(IMAGES)
    assert found == generate(both, features, BEAM)
    assert found != Captioner([model()], Stub()).generate(IMAGES)
    assert "does not say which encoder" in captioner.warning
    other = replace(model({"id": "other", "name": "another"}))
    with pytest.raises(UserError, match="another.*not on those of stub"):
        Captioner([model(), other], Stub())


def test_another_encoder_is_refused_with_the_reason():
    trained = model({"id": "0123456789abcdef", "name": "their encoder"})
    with pytest.raises(UserError, match="their encoder.*0123456789ab.*stub encoder"):
        Captioner([trained], Stub())
    Captioner([model({"id": "stub", "name": "other name"})], Stub())  # the id decides


def test_the_same_network_in_another_precision_is_used_with_a_warning():
    whole, int8, other = (
        {"id": "whole", "name": "whole", "preprocessing": "p"},
        {"id": "int8", "name": "int8", "preprocessing": "p", "float32_id": "whole"},
        {"id": "int4", "name": "int4", "preprocessing": "p", "float32_id": "whole"},
    )
    for trained, given in (whole, int8), (int8, whole), (int8, other):
        warning = Captioner([model(trained)], Stub(**given)).warning
        assert "the same network in another precision" in warning and "\n" not in warning
        assert warning.index(trained["name"]) < warning.index(f"those of {given['name']}")
        assert not Captioner([model(trained)], Stub(**trained)).warning
    with pytest.raises(UserError, match="int8.*not on those of other"):
        Captioner([model(int8)], Stub(id="other", name="other", float32_id="another"))


def test_a_model_of_an_unknown_encoder_has_a_warning():
    assert "does not say which encoder" in Captioner([model()], Stub()).warning


def test_images_are_preprocessed_as_for_training(tmp_path):
    """If the encoder's file does not name a preprocessing, the model decides. A file that names
    another one is refused."""
    pytest.importorskip("onnxruntime")
    from minicap.encoder.session import Encoder
    from tests.encoder.test_session import tiny

    path, onnx = tmp_path / "m.safetensors", tiny(tmp_path / "e.onnx", width=WIDTH)
    model(Encoder(onnx, preprocessing="crop-bilinear").about()).save(path)
    assert minicap.load(path, onnx).encoder.preprocessing == "crop-bilinear-4"
    tiny(onnx, width=WIDTH, about={"preprocessing": "squeeze-nearest-4"})
    with pytest.raises(UserError, match="exported for .* squeeze-nearest-4, not crop-bilinear-4"):
        minicap.load(path, onnx)


def test_another_width_is_refused_with_both():
    wide = Stub()
    wide.feature_size = 9
    with pytest.raises(
        UserError, match="on 8 features of an unknown encoder.*those of stub encoder.*are 9"
    ):
        Captioner([model()], wide)


def test_load_needs_to_know_the_encoder(tmp_path):
    path = tmp_path / "m.safetensors"
    model().save(path)
    with pytest.raises(UserError, match="name that encoder's ONNX file with --encoder"):
        minicap.load(path)
    model({"id": "x", "name": "resnet"}).save(path)
    with pytest.raises(UserError, match="8 features of resnet"):
        minicap.load(str(path))


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
@pytest.mark.parametrize("encoder", [None, "x.onnx"])
def test_without_onnxruntime_one_line_says_how_to_install_it(
    tmp_path, monkeypatch, missing, encoder
):
    from minicap.encoder.session import SEEDED_ENCODER_ID

    path = tmp_path / "m.safetensors"
    model({"id": SEEDED_ENCODER_ID, "name": "seeded"}).save(path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"{missing}.*pip install -e '.\[cpu\]'") as caught:
        minicap.load(path, encoder)
    assert "\n" not in str(caught.value)


def test_no_model_and_no_such_device(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        minicap.load(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="'tpu'.*cpu, cuda"):
        minicap.load(tmp_path / "m.safetensors", device="tpu")


def test_one_image_must_be_in_a_list():
    """A string is a sequence too, of letters, which are not the names of files."""
    with pytest.raises(UserError, match="give a list of images"):
        Captioner([model()], Stub()).caption("image.png")
