"""Recipes: the numbers that were agreed on."""

import ast
import inspect
import json
from dataclasses import fields

import pytest

from minicap.training.recipes import RECIPES, Recipe


def test_the_course_s_recipe():
    """No dropout, no clipping, 20 ids, 64 photos a step, 1,000 steps, 12 epochs, 100 batches."""
    course = RECIPES["course"]
    assert (course.dropout, course.clip_norm, course.patience) == (0, 0, 0)
    assert (course.max_length, course.batch_size) == (20, 64)
    assert (course.sampling, course.steps_per_epoch, course.epochs) == ("photos", 1000, 12)
    assert course.validation == "batches" and not course.standardise


@pytest.mark.parametrize("name", ["course", "flickr8k"])
def test_adam_and_widths_are_the_course_s(name):
    r = RECIPES[name]
    assert (r.learning_rate, r.beta1, r.beta2, r.epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    assert (r.image_bottleneck, r.hidden, r.embedding, r.logit_bottleneck) == (120, 300, 100, 120)
    assert r.min_count == 5


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_sense(name):
    RECIPES[name].check()


def test_the_best_recipe_s_outline():
    """What docs/better-captions.md says of it."""
    best = RECIPES["best"]
    assert (best.photo, best.standardise, best.frequency_bias) == ("always", True, True)
    assert (best.image_bottleneck, best.hidden, best.logit_bottleneck) == (0, 512, 0)
    assert (best.epochs, best.self_critical, best.samples, best.temperature) == (11, 5, 5, 0.4)
    assert best.choose == "cider" and best.image_gain == 0.1 and best.bleu_reward == 1


def test_flickr8k_is_the_reference_run_s(real_data):
    """Held against the file that the reference run left."""
    path = real_data.parent / "reference/pytorch_flickr8k.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    reference = json.loads(path.read_text())
    r = RECIPES["flickr8k"]
    for words in (
        f"batch {r.batch_size}",
        f"cut at {r.max_length} tokens",
        f"clipped at {r.clip_norm:g}",
        f"dropout {r.dropout} ",
    ):
        assert words in reference["recipe"]
    assert len(reference["dev_loss"]) == r.epochs
    assert (r.sampling, r.validation, r.patience) == ("captions", "words", 0)


def test_every_field_says_what_it_is():
    """Each becomes an option with this text as its help."""
    (definition,) = ast.parse(inspect.getsource(Recipe)).body
    body = [part for part in definition.body[1:] if not isinstance(part, ast.FunctionDef)]
    for field, text in zip(body[::2], body[1::2], strict=True):
        assert isinstance(field, ast.AnnAssign) and len(ast.literal_eval(text.value)) > 10
    assert len(body) == 2 * len(fields(Recipe))
