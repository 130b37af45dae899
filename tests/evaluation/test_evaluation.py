"""The scores of all systems, and the warnings about captions as a whole."""

import numpy
import pytest

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.scenes.language import generate_captions
from minicap.data.scenes.scene import random_scene
from minicap.data.vocabulary import Vocabulary
from minicap.evaluation.evaluation import FACTS, TRUE, score
from minicap.evaluation.metrics import Scorer
from tests.evaluation.examples import evaluation


def test_every_system_is_scored_and_truth_is_a_score():
    rng = numpy.random.RandomState(2)
    scenes = [random_scene(rng) for _ in range(6)]
    references = [generate_captions(scene, rng, 2) for scene in scenes]
    images = EvaluationSet([f"{n}.png" for n in range(6)], references, None, None, [])
    scorer = Scorer(images.references)
    captions = {"people": [texts[0] for texts in references], "nobody": [""] * 6}
    systems = score(scorer, images, captions, dict(zip(images.names, scenes, strict=True)))
    assert [systems["people"].scores[name] for name in ("BLEU-1", TRUE)] == pytest.approx([1, 1])
    assert systems["nobody"].scores[TRUE] == 0 and systems["nobody"].each[TRUE] == [0] * 6
    without = score(scorer, images, captions, None)
    assert TRUE not in without["people"].scores
    assert without["people"].each == {
        n: e for n, e in systems["people"].each.items() if n not in (TRUE, FACTS)
    }


def test_the_same_caption_for_every_image_gives_one_warning():
    """Case and punctuation do not matter."""
    (line,) = evaluation(["a dog", "A dog.", "a dog"], cider=(0.1, 0.1)).warnings
    assert line == (
        'all 3 images have the same caption, "a dog": the captions do not depend on the images'
    )


@pytest.mark.parametrize(("same", "warned"), [(1, False), (10, False), (11, True), (99, True)])
def test_one_caption_for_many_images_gives_a_warning(same, warned):
    """Many: more than a tenth of a hundred."""
    warnings = evaluation(["a dog"] * same + [f"cat {n}" for n in range(100 - same)]).warnings
    expected = f'{same} of 100 images ({same}%) have the caption "a dog"'
    assert warnings == [expected] * warned


def test_two_equal_captions_of_three_give_no_warning():
    assert evaluation(["a dog", "a dog", "a cat"]).warnings == []


@pytest.mark.parametrize(("cider", "warned"), [((0.3, 0.299), False), ((0.3, 0.3), True)])
def test_a_score_not_above_a_baseline_gives_a_warning(cider, warned):
    expected = "CIDEr 30.0 is not above 30.0, that of the baseline: shuffled features"
    assert evaluation(["a", "b"], cider=cider).warnings == [expected] * warned


def test_empty_and_unknown_captions_are_counted():
    warnings = evaluation(["", "...", "#UNK#", "#UNK# #UNK#", "#UNK# dog", "a"]).warnings
    assert warnings == [
        "2 of 6 captions are empty: each scores 0",
        "3 of 6 captions contain #UNK#, which matches no reference",
    ]


def test_unused_words():
    """Special tokens are not words; a word outside the vocabulary does not count as used."""
    vocabulary = Vocabulary(["a", "dog", "cat", "tree", "sky"])
    assert evaluation(["a dog", "a zebra", "A dog!"], vocabulary=vocabulary).unused == 3
    assert evaluation(["a dog", "a zebra", "A dog!"]).unused is None
