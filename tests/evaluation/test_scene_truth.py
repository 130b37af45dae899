"""Truth of captions, and its baselines."""

import numpy
import pytest

from minicap.data.dataset import Split
from minicap.data.scenes.language import MIN_FACTS, generate_captions
from minicap.data.scenes.scene import random_scene
from minicap.evaluation.baselines import others
from minicap.evaluation.scene_truth import facts_stated, truth_and_baselines, truths


def split(captions, features=None):
    """A split with names, features and captions, but no tokens."""
    names = [f"scene_{number:05d}.png" for number in range(len(captions))]
    empty = numpy.zeros((0, 3), int)
    return Split(names, features, empty[:, 0], empty, empty[:, 0], captions)


@pytest.fixture(scope="module")
def scenes():
    rng = numpy.random.RandomState(1)
    return [random_scene(rng) for _ in range(12)]


@pytest.fixture(scope="module")
def captions(scenes):
    rng = numpy.random.RandomState(0)
    return [generate_captions(scene, rng, 1)[0] for scene in scenes]


def test_captions_of_the_grammar_are_true_and_others_are_not(scenes, captions):
    assert truths(captions, scenes) == [True] * 12
    assert truths(["", "a scene", "colourless green ideas"], scenes[:3]) == [False] * 3
    rotated = truths(captions[1:] + captions[:1], scenes)
    assert sum(rotated) < 6


def test_each_caption_needs_its_scene(scenes, captions):
    with pytest.raises(ValueError):
        truths(captions, scenes[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_fractions_and_baselines(scenes, captions, seed):
    """Correct captions are all true; the baselines are a permutation without fixed points, and the
    most frequent training caption."""
    dev = split([[]] * 12, numpy.arange(12.0)[:, None])
    train = split([["x y z"], [captions[3], captions[3]]])
    by_name = dict(zip(dev.names, scenes, strict=True))
    found = truth_and_baselines(captions, train, dev, by_name, seed)
    shuffled = [captions[number] for number in others(12, seed)]
    common = [captions[3]] * 12
    assert found == {
        "model": (1.0, numpy.mean(facts_stated(captions, scenes))),
        "shuffled features": (
            numpy.mean(truths(shuffled, scenes)), numpy.mean(facts_stated(shuffled, scenes))
        ),
        "most frequent caption": (
            numpy.mean(truths(common, scenes)), numpy.mean(facts_stated(common, scenes))
        ),
    }  # fmt: skip
    assert found["shuffled features"][0] < 0.5


def test_facts_are_counted_right_or_wrong(scenes, captions):
    assert min(facts_stated(captions, scenes)) >= MIN_FACTS
    assert facts_stated(captions[1:] + captions[:1], scenes) == facts_stated(
        captions[1:] + captions[:1], scenes[1:] + scenes[:1]
    )
    assert facts_stated(["", "two boats"], scenes[:2]) == [0, 0]
