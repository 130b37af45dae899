"""A model in a file: all that captions depend on, and nothing that does not fit together."""

from dataclasses import replace

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.generate import generate_text
from minicap.model.config import Sizes
from minicap.model.initial import initialise
from minicap.model.trained_model import Model, checkpoint
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, model

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH)).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip(path):
    """Parameters, words, scaling, limit and encoder come back, and so the captions do."""
    mean, scale = numpy.arange(8, dtype="float32"), numpy.linspace(1, 2, 8, dtype="float32")
    scaling = Scaling(mean, scale, numpy.diag(scale))
    before = replace(model({"id": "x", "name": "é"}, max_length=6), scaling=scaling)
    before.save(path, epoch=3, options={"seed": 0})
    after = Model.load(path)
    assert (after.sizes, after.max_length, after.encoder) == (before.sizes, 6, before.encoder)
    assert after.vocabulary.words == before.vocabulary.words
    assert after.parameters.keys() == before.parameters.keys()
    for name, array in before.parameters.items():
        assert numpy.array_equal(after.parameters[name], array)
    assert numpy.array_equal(after.scaling(FEATURES), before.scaling(FEATURES))
    assert generate_text([after], FEATURES) == generate_text([before], FEATURES)
    assert checkpoint.load(path, "model")[1]["epoch"] == 3


def test_a_model_that_always_sees_the_photo_makes_the_round_trip(path):
    m = model()
    sizes = replace(m.sizes, photo="always", embedding=7)
    parameters = initialise(sizes, numpy.random.default_rng(0))
    parameters.flat *= 4
    before = replace(m, sizes=sizes, parameters=parameters)
    before.save(path)
    after = Model.load(path)
    assert after.sizes == sizes and (after.parameters.flat == parameters.flat).all()
    assert (
        generate_text([after], FEATURES)
        == generate_text([before], FEATURES)
        != generate_text([m], FEATURES)
    )


def saved_with(path, change):
    """The tiny model, saved with other options in its description."""
    model().save(path)
    arrays, about = checkpoint.load(path, "model")
    change(about["sizes"])
    checkpoint.save(path, "model", arrays, about)


def test_options_that_are_gone_and_were_off_change_nothing(path):
    saved_with(path, lambda sizes: sizes.update(layers=1, maxout=False, tie=False))
    after = Model.load(path)
    assert after.sizes == model().sizes and generate_text([after], FEATURES) == generate_text(
        [model()], FEATURES
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda sizes: sizes.update(layers=2), "was trained with --layers, which this version"),
        (lambda sizes: sizes.update(tie=True), "was trained with --tie, which this version"),
        (lambda sizes: sizes.update(heads=8), "has the option heads, which this version .* not"),
        (lambda sizes: sizes.pop("photo"), "lacks the option photo, which this version"),
    ],
)
def test_options_of_another_version_are_named_in_one_line(path, change, told):
    saved_with(path, change)
    with pytest.raises(UserError, match=told) as caught:
        Model.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def change(path, arrays=lambda a: a, **about):
    """The saved model with some of it changed, under a right SHA-256."""
    old, told = checkpoint.load(path, "model")
    checkpoint.save(path, "model", arrays(old), told | about)
    with pytest.raises(UserError) as caught:
        Model.load(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def test_a_vocabulary_that_does_not_fit_says_what_differs(path):
    model().save(path)
    text = change(path, vocabulary=Vocabulary(["a", "dog"]).words)
    assert "the model has 8 words" in text and "the vocabulary 6" in text
    model().save(path)
    assert "do not fit" in change(path, vocabulary=model().vocabulary.words[::-1])


def test_arrays_that_do_not_fit_the_sizes(path):
    def narrower(arrays):
        return arrays | {"lstm": arrays["lstm"][:, :-1]}

    model().save(path)
    assert "lstm" in change(path, narrower)

    def fewer(arrays):
        return {name: array for name, array in arrays.items() if name != "token_logits"}

    model().save(path)
    assert "token_logits" in change(path, fewer)


def test_a_run_is_no_model(path):
    checkpoint.save(path, "run", {}, {})
    with pytest.raises(UserError, match="this is a run, but a model is needed"):
        Model.load(path)


def test_a_full_disk_keeps_the_old_model(path, monkeypatch):
    model(max_length=6).save(path)

    def full(arrays, file, metadata):
        file.write_bytes(b"half a model")
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        model(max_length=5).save(path)
    assert Model.load(path).max_length == 6 and list(path.parent.iterdir()) == [path]


def test_default_sizes_are_the_course_s():
    shapes = Sizes(8769).shapes()
    assert shapes["img_embed_to_bottleneck"] == (2049, 120)
    assert shapes["lstm"] == (401, 1200) and shapes["token_logits"] == (121, 8769)


def test_a_file_that_says_it_is_a_model_and_is_none(path):
    checkpoint.save(path, "model", {"x": numpy.zeros(1, "f4")}, {})
    with pytest.raises(UserError, match="damaged, or of another version"):
        Model.load(path)
