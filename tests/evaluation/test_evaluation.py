"""What is said of captions as a lot, and which of them are shown."""

from dataclasses import asdict, replace

import numpy
import pytest

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.features import Scaling
from minicap.data.scenes.language import write_captions
from minicap.data.scenes.scene import random_scene
from minicap.data.vocabulary import Vocabulary
from minicap.evaluation.evaluation import (
    FACTS,
    TRUE,
    Evaluation,
    Row,
    Written,
    check_features,
    choose,
    facts,
    manner,
    score,
    table,
    to_json,
    write,
)
from minicap.evaluation.metrics import METRICS, Judge
from minicap.generation.config import GenerationConfig
from minicap.generation.generate import generate
from minicap.utils.errors import UserError
from tests import tiny

RNG = numpy.random.default_rng(0)


def pictures(number, features=None, encoder=None):
    names = [f"{n}.jpg" for n in range(number)]
    return EvaluationSet(
        names, [[f"a dog and {n} cats"] for n in range(number)], features, encoder, []
    )


def evaluation(captions, floor=None, cider=(0.3, 0.2), vocabulary=None, true=None):
    """An evaluation with these captions, and one floor."""

    def row(texts, value):
        each = {name: [value] * len(texts) for name in METRICS}
        scores = dict.fromkeys(METRICS, value)
        if true is not None:
            scores[TRUE], each[TRUE] = true, [true] * len(texts)
            each[FACTS] = [5.0] * len(texts)
        return Row(texts, scores, each)

    rows = {"model": row(captions, cider[0])}
    rows["shuffled features"] = row(floor or captions[1:] + captions[:1], cider[1])
    written = [[Written(caption)] for caption in captions]
    settings = {"split": "dev", "pictures": len(captions), "tokenizer": "words"}
    return Evaluation(pictures(len(captions)), rows, written, vocabulary, settings, [])


def test_every_writer_is_scored_and_truth_is_a_score():
    rng = numpy.random.RandomState(2)
    scenes = [random_scene(rng) for _ in range(6)]
    said = [write_captions(scene, rng, 2) for scene in scenes]
    some = EvaluationSet([f"{n}.png" for n in range(6)], said, None, None, [])
    judge = Judge(some.references)
    writers = {"people": [texts[0] for texts in said], "nobody": [""] * 6}
    rows = score(judge, some, writers, dict(zip(some.names, scenes, strict=True)))
    assert [rows["people"].scores[name] for name in ("BLEU-1", TRUE)] == pytest.approx([1, 1])
    assert rows["nobody"].scores[TRUE] == 0 and rows["nobody"].each[TRUE] == [0] * 6
    without = score(judge, some, writers, None)
    assert TRUE not in without["people"].scores
    assert without["people"].each == {
        n: e for n, e in rows["people"].each.items() if n not in (TRUE, FACTS)
    }


def test_the_same_caption_for_every_picture_is_detected():
    """However it is spelled, and in one line alone."""
    (line,) = evaluation(["a dog", "A dog.", "a dog"], cider=(0.1, 0.1)).warnings
    assert line.startswith('every one of the 3 pictures has the same caption, "a dog": nothing of')


@pytest.mark.parametrize(("same", "said"), [(1, False), (10, False), (11, True), (99, True)])
def test_one_caption_for_many_pictures_is_detected(same, said):
    """More than a tenth of a hundred."""
    found = evaluation(["a dog"] * same + [f"cat {n}" for n in range(100 - same)]).warnings
    wanted = f'the caption "a dog" stands under {same} of 100 pictures ({same}%)'
    assert found == [wanted] * said


def test_two_alike_of_few_are_no_sign():
    assert evaluation(["a dog", "a dog", "a cat"]).warnings == []


@pytest.mark.parametrize(("cider", "said"), [((0.3, 0.299), False), ((0.3, 0.3), True)])
def test_what_is_not_above_a_floor_is_said(cider, said):
    wanted = "CIDEr 30.0 is not above 30.0, that of the floor: shuffled features"
    assert evaluation(["a", "b"], cider=cider).warnings == [wanted] * said


def test_captions_that_say_nothing_are_counted():
    found = evaluation(["", "...", "#UNK#", "#UNK# #UNK#", "#UNK# dog", "a"]).warnings
    assert found == [
        "2 of 6 captions are empty: each scores 0",
        "3 of 6 captions hold #UNK#, which counts as a word of no reference",
    ]


def test_facts_and_words_never_used():
    """Special words are none; what is not in the vocabulary is not counted as used."""
    vocabulary = Vocabulary(["a", "dog", "cat", "tree", "sky"])
    told = evaluation(["a dog", "a zebra", "A dog!"], vocabulary=vocabulary, true=0.5)
    assert told.unused == 3
    assert dict(facts(told)) == {
        "distinct captions": "2 of 3",
        "most frequent": '"a dog", 2 times (66.7%)',
        "mean length": "2.0 words (references 5.0)",
        "words never used": "3 of 5 (60.0%)",
        "true captions": "50.0%, with 5.0 facts each",
    }
    assert "words never used" not in dict(facts(evaluation(["a"])))


def test_json_has_every_figure_and_the_table_too():
    told = evaluation(["a dog", "a cat"], cider=(1.25, 0.2), true=1.0)
    values = to_json(told)
    assert values["tokenizer"] == "words" and values["pictures"] == 2
    model = values["scores"]["model"]
    assert model == dict.fromkeys(METRICS, 1.25) | {
        TRUE: 1.0,
        "distinct captions": 2,
        "words in a caption": 2.0,
    }
    assert values["most frequent"][0] == {"caption": "a dog", "pictures": 1}
    head, first, _ = table(told)
    assert head.split() == [*METRICS, TRUE, "distinct", "words"]
    assert first.split() == ["model", *["125.0"] * 6, "100.0", "2", "2.0"]


def test_best_between_and_worst():
    told = evaluation([f"c {n}" for n in range(30)])
    told.judged.each["CIDEr"][:] = [((n * 7) % 30) / 10 for n in range(30)]

    def values(rows):
        return [round(10 * told.judged.each["CIDEr"][row]) for row in rows]

    chosen = choose(told, range(30), 12)
    assert [values(rows) for rows in chosen.values()] == [
        [29, 28, 27, 26],
        sorted(values(chosen["Between, best first"]), reverse=True),
        [0, 1, 2, 3],
    ]
    assert len({row for rows in chosen.values() for row in rows}) == 12
    few = choose(told, [3, 4, 5], 12)
    assert list(few) == ["All by CIDEr, best first"] and values(*few.values()) == [28, 21, 5]
    for count in range(13):
        shown = [row for rows in choose(told, range(30), count).values() for row in rows]
        assert len(shown) == len(set(shown)) == count


def test_a_model_writes_from_features_as_it_scales_them():
    """As it writes when it is asked itself, with the beam's candidates and their probabilities."""
    model = tiny.model(dtype="float64")
    mean = numpy.arange(tiny.WIDTH) / 9.0
    model = replace(model, scaling=Scaling(mean, numpy.full(tiny.WIDTH, 0.5)))
    features = numpy.random.default_rng(0).normal(size=(300, tiny.WIDTH))
    written = write([model], pictures(300, features), GenerationConfig(beam_size=2), RNG)
    scaled = (features.astype("float32") - mean) / 2
    asked = generate([model.for_scaled_features()], scaled, GenerationConfig(beam_size=2))
    for mine, theirs in zip(written, asked, strict=True):
        assert len(mine) == 2
        for one, other in zip(mine, theirs, strict=True):
            assert one.text == model.vocabulary.decode(other.ids)
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert one.probabilities == pytest.approx(numpy.exp(other.log_probabilities), abs=1e-5)


ENCODER = {"id": "one", "name": "encoder one"}


@pytest.mark.parametrize(
    ("features", "encoder", "line"),
    [
        (None, None, "needs the pictures' features: name them with --features"),
        (
            numpy.ones((2, 3), "f4"),
            ENCODER,
            "8 features of encoder one .*, those of encoder one .* are 3",
        ),
        (
            numpy.ones((2, 8), "f4"),
            {"id": "x", "name": "x"},
            "features of the encoder encoder one .*, not from those of x",
        ),
    ],
)
def test_features_of_another_encoder_are_refused(features, encoder, line):
    with pytest.raises(UserError, match=line):
        check_features([tiny.model(ENCODER)], pictures(2, features, encoder))


def test_doubts_about_the_encoder_are_noted():
    features, model = numpy.ones((2, 8), "f4"), [tiny.model(ENCODER)]
    for other, doubt in (
        (ENCODER, None),
        ({"id": "y", "name": "y", "float32_id": "one"}, "near, not equal"),
        (None, "the features did not say which encoder made them"),
    ):
        notes = check_features(model, pictures(2, features, other))
        assert len(notes) == bool(doubt) and (doubt or "") in str(notes)
    assert check_features([tiny.model()], pictures(2, features, None)) == []


def test_the_manner_of_writing_in_words():
    assert manner(asdict(GenerationConfig(beam_size=4, length_penalty=0.7))) == "beams 4, alpha 0.7"
    drawn = asdict(GenerationConfig(temperature=1.0, top_p=0.9))
    assert manner(drawn) == "temperature 1.0, top-p 0.9"  # no beam took part
