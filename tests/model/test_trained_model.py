"""Model files hold everything captions depend on; files that do not fit together are refused."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.generate import generate_text
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.model.trained_model import Model, checkpoint
from minicap.training.options import RunOptions
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, model, recipe

FEATURES = numpy.random.default_rng(1).normal(size=(9, WIDTH)).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip(path):
    """Parameters, words, scaling, limit and encoder are restored, and so are the captions."""
    mean, scale = numpy.arange(8, dtype="float32"), numpy.linspace(1, 2, 8, dtype="float32")
    scaling = Scaling(mean, scale, numpy.diag(scale))
    before = replace(model({"id": "x", "name": "é"}, max_length=6), scaling=scaling)
    before.save(path, epoch=3, options={"seed": 0})
    after = Model.load(path)
    assert_same(after, before)
    assert after.max_length == 6
    assert generate_text([after], FEATURES) == generate_text([before], FEATURES)
    assert checkpoint.load(path, "model")[1]["epoch"] == 3


def assert_same(one, other):
    """Equal in everything that captions depend on, bit for bit."""
    assert (one.max_length, one.encoder) == (other.max_length, other.encoder)
    assert one.vocabulary.words == other.vocabulary.words
    assert one.decoder.config == other.decoder.config
    assert one.decoder.parameters.keys() == other.decoder.parameters.keys()
    for name, array in other.decoder.parameters.items():
        assert numpy.array_equal(one.decoder.parameters[name], array)
    assert numpy.array_equal(one.scaling(FEATURES), other.scaling(FEATURES))


def test_round_trip_with_the_image_at_every_step(path):
    m = model()
    config = replace(m.decoder.config, image_input="every_step", embedding_size=7)
    shapes = config.shapes(WIDTH, len(m.vocabulary))
    parameters = initial_parameters(config, shapes, numpy.random.default_rng(0))
    parameters.flat *= 4
    before = replace(m, decoder=Decoder(config, parameters))
    before.save(path)
    after = Model.load(path)
    assert after.decoder.config == config
    assert (after.decoder.parameters.flat == parameters.flat).all()
    assert (
        generate_text([after], FEATURES)
        == generate_text([before], FEATURES)
        != generate_text([m], FEATURES)
    )


def saved_with(path, change):
    """The tiny model, saved with other options in its description."""
    model().save(path)
    arrays, about = checkpoint.load(path, "model")
    change(about["decoder"])
    checkpoint.save(path, "model", arrays, about)


def test_removed_options_that_were_off_change_nothing(path):
    saved_with(path, lambda config: config.update(layers=1, maxout=False, tie=False))
    after = Model.load(path)
    assert after.decoder.config == model().decoder.config
    assert generate_text([after], FEATURES) == generate_text([model()], FEATURES)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config.update(layers=2), "was trained with --layers, which this version"),
        (lambda config: config.update(tie=True), "was trained with --tie, which this version"),
        (lambda config: config.update(heads=8), "has the option heads, which this version .* not"),
        (
            lambda config: config.pop("image_input"),
            "lacks the option image_input, which this version",
        ),
    ],
)
def test_options_of_another_version_are_named_in_one_line(path, change, reason):
    saved_with(path, change)
    with pytest.raises(UserError, match=reason) as caught:
        Model.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


OLD_SIZES = {  # as format 1 stored the tiny model's
    "vocabulary": 8,
    "feature": WIDTH,
    "image_bottleneck": 5,
    "hidden": 8,
    "embedding": 6,
    "logit_bottleneck": 7,
    "photo": "first",
}
OLD_SETTINGS = {  # and a run's
    "epochs": 2,
    "patience": 0,
    "sampling": "photos",
    "steps_per_epoch": 7,
    "validation": "batches",
    "batch_size": 4,
    "learning_rate": 0.01,
    "warm_up": 0.5,
    "decay": True,
    "beta1": 0.8,
    "beta2": 0.9,
    "epsilon": 1e-7,
    "dropout": 0.1,
    "dropout_words": 0.2,
    "self_critical": 1,
    "self_critical_rate": 0.001,
    "samples": 2,
    "temperature": 0.7,
    "reward_bleu": 0.25,
    "choose": "cider",
    "clip_norm": 5.0,
    "max_len": 9,
    "min_count": 2,
    "standardise": True,
    "components": 0,
    "photo": "always",
    "image_bottleneck": 5,
    "hidden": 8,
    "embedding": 6,
    "logit_bottleneck": 7,
    "word_range": 1.0,
    "photo_gain": 0.5,
    "log_frequencies": True,
}
OLD_OPTIONS = {
    "data": {
        "captions": "/data/captions.txt",
        "features": "/data/features.npz",
        "train_split": None,
        "dev_split": None,
        "test_split": None,
        "dev_fraction": 0.1,
        "test_fraction": 0.0,
        "split_seed": 0,
    },
    "recipe": "best",
    "settings": OLD_SETTINGS,
    "out": "/runs/best",
    "resume": None,
    "photos": None,
    "device": "cpu",
    "threads": 3,
    "seed": 4,
}


def save_as_format_1(path, model, monkeypatch):
    """Write a model as minicap did before format 2."""
    decoder, scaling = model.decoder, model.scaling
    arrays = dict(decoder.parameters) | {
        "features.mean": scaling.mean,
        "features.scale": scaling.scale,
    }
    image_input = decoder.config.image_input
    old = OLD_SIZES | {"photo": {"initial_state": "first", "every_step": "always"}[image_input]}
    description = {
        "sizes": old,
        "vocabulary": model.vocabulary.words,
        "max_len": model.max_length,
        "encoder": model.encoder,
        "epoch": 3,
        "options": OLD_OPTIONS,
    }
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT", 1)
        checkpoint.save(path, "model", arrays, description)


@pytest.mark.parametrize("image_input", ["initial_state", "every_step"])
def test_a_model_of_format_1_loads(path, monkeypatch, image_input):
    """Equal to the same model in format 2, with the run's options under their new names."""
    config = DecoderConfig(5, 8, 6, 7, image_input)
    m = model({"id": "x", "name": "é"}, max_length=6)
    shapes = config.shapes(WIDTH, len(m.vocabulary))
    parameters = initial_parameters(config, shapes, numpy.random.default_rng(0))
    m = replace(m, decoder=Decoder(config, parameters))
    save_as_format_1(path, m, monkeypatch)
    old, description = Model.load(path), checkpoint.load(path, "model")[1]
    m.save(path)
    assert_same(old, Model.load(path))
    assert description.keys() == {
        "format", "kind", "decoder", "vocabulary", "max_length", "encoder", "epoch", "options"
    }  # fmt: skip
    assert description["epoch"] == 3


def test_run_options_of_format_1_load(path, monkeypatch):
    save_as_format_1(path, model(), monkeypatch)
    saved = checkpoint.load(path, "model")[1]["options"]
    options = RunOptions.from_json(saved, path)
    expected = recipe(
        epochs=2,
        patience=0,
        sample_by="images",
        steps_per_epoch=7,
        validation="batches",
        batch_size=4,
        learning_rate=0.01,
        warmup_epochs=0.5,
        decay=True,
        beta1=0.8,
        beta2=0.9,
        epsilon=1e-7,
        dropout=0.1,
        embedding_dropout=0.2,
        self_critical_epochs=1,
        self_critical_learning_rate=0.001,
        samples_per_image=2,
        self_critical_temperature=0.7,
        bleu_reward=0.25,
        monitor="cider",
        clip_norm=5.0,
        max_length=9,
        min_count=2,
        standardise=True,
        image_input="every_step",
        embedding_range=1.0,
        image_gain=0.5,
        frequency_bias=True,
    )
    assert options.as_recipe() == expected
    assert (options.workers, options.seed, options.recipe) == (3, 4, "best")
    assert str(options.out) == "/runs/best" and options.data.captions == (
        Path("/data/captions.txt"),
    )
    saved["data"]["strict"] = False  # options that were added since
    saved["training"] |= {"tokenizer": "course", "image_dropout": None}
    saved["init_from"] = None
    saved["decoder"] |= {"attention_size": 256, "positions": 1}
    for name in "captions", "features":  # one path, until there could be several
        saved["data"][name] = [saved["data"][name]]
    saved["photos"] = [saved["photos"]] if saved["photos"] else []
    assert options.to_json() == saved


@pytest.mark.parametrize("layers", [1, 2])
def test_removed_options_of_format_1(path, monkeypatch, layers):
    """Ignored if they were off, else named in one line."""
    monkeypatch.setitem(OLD_SIZES, "layers", layers)
    save_as_format_1(path, model(), monkeypatch)
    if layers == 1:
        assert_same(Model.load(path), model())
    else:
        with pytest.raises(UserError, match="was trained with --layers, which this version"):
            Model.load(path)


def change(path, arrays=lambda a: a, **about):
    """Change some of a saved model, with a valid SHA-256. Returns why it is refused."""
    old, description = checkpoint.load(path, "model")
    checkpoint.save(path, "model", arrays(old), description | about)
    with pytest.raises(UserError) as caught:
        Model.load(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def test_a_vocabulary_that_does_not_fit_says_what_differs(path):
    model().save(path)
    text = change(path, vocabulary=Vocabulary(["a", "dog"]).words)
    assert "do not fit together" in text and "(8, 8)" in text
    assert "6 words and 8 features need (8, 6)" in text
    model().save(path)
    assert "not a sorted list" in change(path, vocabulary=model().vocabulary.words[::-1])


def test_arrays_that_do_not_fit_the_sizes(path):
    def narrower(arrays):
        return arrays | {"lstm": arrays["lstm"][:, :-1]}

    model().save(path)
    assert "lstm" in change(path, narrower)

    def fewer(arrays):
        return {name: array for name, array in arrays.items() if name != "token_logits"}

    model().save(path)
    assert "token_logits" in change(path, fewer)


def test_a_run_is_not_a_model(path):
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


def test_default_sizes_are_those_of_the_course_notebook():
    shapes = DecoderConfig().shapes(2048, 8769)
    assert shapes["img_embed_to_bottleneck"] == (2049, 120)
    assert shapes["lstm"] == (401, 1200) and shapes["token_logits"] == (121, 8769)


def test_a_file_that_only_says_it_is_a_model(path):
    checkpoint.save(path, "model", {"x": numpy.zeros(1, "f4")}, {})
    with pytest.raises(UserError, match="damaged, or written by another version"):
        Model.load(path)


def test_the_warning_about_an_unknown_encoder_names_the_known_one():
    about = {"id": "x", "name": "known one", "preprocessing": "p"}
    for warning, whose in (
        (model(None).check_encoder(about, WIDTH), "the model does not say"),
        (model(about).check_encoder({}, WIDTH), "the features file does not say"),
    ):
        assert warning.startswith(whose) and "unless it was known one (x, p)" in warning
