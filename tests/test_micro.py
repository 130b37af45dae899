"""docs/walkthrough/micro.py: the walkthrough's captioner computes what minicap computes."""

import ast
import importlib.util
import itertools
import types
from pathlib import Path

import numpy
import pytest

from minicap.data.batches import pack
from minicap.data.scenes.dataset import shipped_split
from minicap.evaluation.scene_truth import truths
from minicap.model.config import DecoderConfig
from minicap.model.decoder import Decoder

PATH = Path(__file__).parents[1] / "docs/walkthrough/micro.py"
STEPS = 900  # seven of ten captions are true then
SIZES = {"F": 5, "H": 4, "D": 3, "V": 9}


@pytest.fixture(scope="module")
def micro():
    spec = importlib.util.spec_from_file_location("micro", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def case(micro):
    """Parameters in float64, biases included, and four captions of different lengths."""
    rng = numpy.random.default_rng(0)
    p = micro.initialise(**SIZES, rng=rng)
    p = {name: array + 0.1 * rng.standard_normal(array.shape) for name, array in p.items()}
    lengths = numpy.array([6, 3, 5, 2])
    x, ids = rng.standard_normal((4, 5)), rng.integers(0, 9, (4, 6))
    mask = (numpy.arange(5) < lengths[:, None] - 1).astype(float)
    return p, x, ids * (numpy.arange(6) < lengths[:, None]), mask, lengths


def as_minicap(p):
    """The same parameters, as minicap arranges them: each bias is its weights' last row."""
    return {
        "img_embed_bottleneck_to_h0": numpy.vstack([p["W_image"], p["b_image"]]),
        "word_embed": p["E"],
        "lstm": numpy.vstack([p["U"], p["W"], p["b"]]),
        "token_logits": numpy.vstack([p["W_out"], p["b_out"]]),
    }


def test_loss_and_gradients_are_minicap_s(micro, case):
    p, x, ids, mask, lengths = case
    loss, gradients = micro.loss_and_gradients(p, x, ids, mask)
    config = DecoderConfig(image_bottleneck=0, hidden_size=4, embedding_size=3, logit_bottleneck=0)
    parameters = as_minicap(p)
    assert {n: a.shape for n, a in parameters.items()} == config.shapes(5, 9)
    expected_loss, backward = Decoder(config, parameters).loss(pack(x, ids, lengths))
    expected = {name: numpy.empty_like(array) for name, array in parameters.items()}
    backward(expected)
    assert abs(loss - expected_loss) <= 1e-12
    for name, gradient in as_minicap(gradients).items():
        error = numpy.abs(gradient - expected[name]).max()
        assert error <= 1e-12 * max(1, numpy.abs(expected[name]).max()), name


def test_it_needs_nothing_but_numpy():
    tree = ast.parse(PATH.read_text(encoding="utf-8"))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    imported |= {
        n.module.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    assert imported == {"gzip", "time", "pathlib", "numpy"}


@pytest.mark.slow
def test_four_of_ten_captions_are_true(micro, monkeypatch, capsys):
    """Eight of ten are after 90 seconds on two quiet cores. Here the clock counts steps, so that
    the result does not depend on the machine's speed."""
    clock = types.SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(micro, "time", clock)
    params, words = micro.train(seconds=STEPS)
    assert "step  200" in capsys.readouterr().out
    features, _ = micro.load_scenes()
    scenes = shipped_split("dev")
    captions = micro.generate(params, numpy.array([features[name] for name in scenes]), words)
    assert numpy.mean(truths(captions, list(scenes.values()))) >= 0.4
