"""Fine-tuning: what a new decoder takes over from a trained one."""

from dataclasses import replace

import numpy
import pytest

from minicap.data.features import Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.generation.generate import generate_text
from minicap.model.decoder import Decoder
from minicap.model.initial import initial_parameters
from minicap.nn.parameters import Parameters
from minicap.training.fine_tuning import adapted, check, notes, transfer
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, dataset, model, recipe


def test_known_words_keep_their_rows_and_columns():
    """The logits of the known words are those of the trained model; new rows are untouched."""
    old = model()
    vocabulary = Vocabulary([*old.vocabulary.words, "aardvark", "cat", "zebra"])
    config, rng = old.decoder.config, numpy.random.default_rng(0)
    shapes = config.shapes(WIDTH, len(vocabulary))
    parameters = initial_parameters(config, shapes, rng)
    before = {name: array.copy() for name, array in parameters.items()}
    transfer(parameters, vocabulary, old)
    new = [vocabulary.ids[word] for word in ("aardvark", "cat", "zebra")]
    assert (parameters["word_embed"][new] == before["word_embed"][new]).all()
    assert (parameters["token_logits"][:, new] == before["token_logits"][:, new]).all()
    features = rng.normal(size=(5, WIDTH)).astype("float32")
    for word in old.vocabulary.words:
        row, column = vocabulary.ids[word], old.vocabulary.ids[word]
        trained = old.decoder.parameters
        assert (parameters["word_embed"][row] == trained["word_embed"][column]).all()
        assert (parameters["token_logits"][:, row] == trained["token_logits"][:, column]).all()

    parameters["token_logits"][-1, new] = -1e9  # never predicted: the captions are the old ones
    grown = replace(old, decoder=Decoder(config, parameters), vocabulary=vocabulary)
    assert generate_text([old], features) == generate_text([grown], features)


def test_without_new_words_nothing_changes():
    old = model()
    shapes = old.decoder.config.shapes(WIDTH, len(old.vocabulary))
    parameters = Parameters(shapes)
    transfer(parameters, old.vocabulary, old)
    for name, array in old.decoder.parameters.items():
        assert (parameters[name] == array).all()


def test_settings_that_the_model_fixes():
    old = replace(model(), vocabulary=Vocabulary(["a", "blue", "dog", "red"], "unicode"))
    wanted = adapted(recipe(standardise=True, hidden_size=99, learning_rate=0.5), old)
    assert wanted.decoder == old.decoder.config
    assert (wanted.training.tokenizer, wanted.training.max_length) == ("unicode", 7)
    assert not wanted.training.standardise and wanted.training.learning_rate == 0.5
    check(wanted, old)
    check(replace(wanted, training=replace(wanted.training, max_length=30, epochs=9)), old)
    for part, name, value in (
        ("decoder", "hidden_size", 99),
        ("training", "tokenizer", "course"),
        ("training", "components", 4),
    ):
        changed = replace(wanted, **{part: replace(getattr(wanted, part), **{name: value})})
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} cannot be changed with"):
            check(changed, old)


def test_another_encoder_is_refused_and_an_unknown_one_noted(tmp_path):
    data = dataset(tmp_path)
    same = replace(model(data.encoder), scaling=Scaling.none(WIDTH))
    (line,) = notes(data, same)
    assert line.startswith("fine-tuning: 4 known words, ") and " new (" in line
    assert len(notes(data, replace(same, encoder=None))) == 2
    with pytest.raises(UserError, match="was trained on the features of the encoder other"):
        notes(data, replace(same, encoder={"id": "other", "name": "other"}))
