"""Truth of captions, and the floors it is held against."""

import numpy
import pytest

from minicap.data.dataset import Split
from minicap.data.scenes.language import MIN_FACTS, write_captions
from minicap.data.scenes.scene import random_scene
from minicap.evaluation.baselines import others
from minicap.evaluation.scene_truth import facts, truth_and_baselines, truths


def split(captions, features=None):
    """A split of which metrics look at names, features and captions alone."""
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
    return [write_captions(scene, rng, 1)[0] for scene in scenes]


def test_a_written_caption_is_true_of_its_scene_and_an_invented_one_is_not(scenes, captions):
    assert truths(captions, scenes) == [True] * 12
    assert truths(["", "a scene", "colourless green ideas"], scenes[:3]) == [False] * 3
    rotated = truths(captions[1:] + captions[:1], scenes)
    assert sum(rotated) < 6


def test_each_caption_needs_its_scene(scenes, captions):
    with pytest.raises(ValueError):
        truths(captions, scenes[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_shares_and_floors(scenes, captions, seed):
    """A writer that looks is always right. Shuffled, nobody has their own features and everybody
    somebody's; the most frequent caption is train's."""
    judged = split([[]] * 12, numpy.arange(12.0)[:, None])
    train = split([["x y z"], [captions[3], captions[3]]])
    by_name = dict(zip(judged.names, scenes, strict=True))
    found = truth_and_baselines(captions, train, judged, by_name, seed)
    shuffled = [captions[number] for number in others(12, seed)]
    common = [captions[3]] * 12
    assert found == {
        "model": (1.0, numpy.mean(facts(captions, scenes))),
        "shuffled features": (
            numpy.mean(truths(shuffled, scenes)), numpy.mean(facts(shuffled, scenes))
        ),
        "most frequent caption": (
            numpy.mean(truths(common, scenes)), numpy.mean(facts(common, scenes))
        ),
    }  # fmt: skip
    assert found["shuffled features"][0] < 0.5


def test_facts_are_counted_right_or_wrong(scenes, captions):
    assert min(facts(captions, scenes)) >= MIN_FACTS
    assert facts(captions[1:] + captions[:1], scenes) == facts(
        captions[1:] + captions[:1], scenes[1:] + scenes[:1]
    )
    assert facts(["", "two boats"], scenes[:2]) == [0, 0]
