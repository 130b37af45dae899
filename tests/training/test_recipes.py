"""Recipes: their numbers are those of the original notebook, the reference run and the docs."""

import ast
import inspect
import json
from dataclasses import fields

import pytest

from minicap.model.config import DecoderConfig
from minicap.training.config import TrainingConfig
from minicap.training.recipes import RECIPES


def test_the_course_recipe_is_the_original_notebook_s():
    """No dropout, no clipping, 20 ids, 64 images a step, 1,000 steps, 12 epochs, 100 batches."""
    course = RECIPES["course"].training
    assert (course.dropout, course.embedding_dropout, course.clip_norm) == (0, 0, 0)
    assert (course.max_length, course.batch_size, course.patience) == (20, 64, 0)
    assert (course.sample_by, course.steps_per_epoch, course.epochs) == ("images", 1000, 12)
    assert course.validation == "batches" and not course.standardise


@pytest.mark.parametrize("name", ["course", "flickr8k"])
def test_adam_and_sizes_are_the_original_notebook_s(name):
    r, d = RECIPES[name].training, RECIPES[name].decoder
    assert (r.learning_rate, r.beta1, r.beta2, r.epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    assert (d.image_bottleneck, d.hidden_size, d.embedding_size) == (120, 300, 100)
    assert d.logit_bottleneck == 120 and r.min_count == 5


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_in_range(name):
    RECIPES[name].check()


def test_the_best_recipe_is_as_documented():
    """In docs/better-captions.md."""
    best, d = RECIPES["best"].training, RECIPES["best"].decoder
    assert (d.image_input, best.standardise, best.frequency_bias) == ("every_step", True, True)
    assert (d.image_bottleneck, d.hidden_size, d.logit_bottleneck) == (0, 512, 0)
    assert (best.epochs, best.self_critical_epochs, best.samples_per_image) == (11, 5, 5)
    assert best.self_critical_temperature == 0.4
    assert best.monitor == "cider" and best.image_gain == 0.1 and best.bleu_reward == 1


def test_flickr8k_is_the_reference_run_s(real_data):
    """Compared with the file that the reference run left."""
    path = real_data.parent / "reference/pytorch_flickr8k.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    reference = json.loads(path.read_text())
    r = RECIPES["flickr8k"].training
    for words in (
        f"batch {r.batch_size}",
        f"cut at {r.max_length} tokens",
        f"clipped at {r.clip_norm:g}",
        f"dropout {r.dropout} ",
    ):
        assert words in reference["recipe"]
    assert len(reference["dev_loss"]) == r.epochs
    assert (r.sample_by, r.validation, r.patience) == ("captions", "words", 0)


@pytest.mark.parametrize("config", [DecoderConfig, TrainingConfig])
def test_every_field_has_a_help_text(config):
    """Each field is an option, with the string below it as its help."""
    (definition,) = ast.parse(inspect.getsource(config)).body
    body = [part for part in definition.body[1:] if not isinstance(part, ast.FunctionDef)]
    for field, text in zip(body[::2], body[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign) and len(ast.literal_eval(text.value)) > 10
    assert len(body) == 2 * len(fields(config))
