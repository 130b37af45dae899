"""An evaluation in words and numbers."""

from dataclasses import asdict

from minicap.data.vocabulary import Vocabulary
from minicap.evaluation.evaluation import TRUE
from minicap.evaluation.metrics import METRICS
from minicap.evaluation.summary import describe, statistics, table, to_json
from minicap.generation.config import GenerationConfig
from tests.evaluation.examples import evaluation


def test_statistics():
    vocabulary = Vocabulary(["a", "dog", "cat", "tree", "sky"])
    result = evaluation(["a dog", "a zebra", "A dog!"], vocabulary=vocabulary, true=0.5)
    assert dict(statistics(result)) == {
        "distinct captions": "2 of 3",
        "most frequent": '"a dog", 2 times (66.7%)',
        "mean length": "2.0 words (references 5.0)",
        "words never used": "3 of 5 (60.0%)",
        "true captions": "50.0%, with 5.0 facts each",
    }
    assert "words never used" not in dict(statistics(evaluation(["a"])))


def test_json_and_table_have_every_score():
    result = evaluation(["a dog", "a cat"], cider=(1.25, 0.2), true=1.0)
    values = to_json(result)
    assert values["tokenizer"] == "course" and values["images"] == 2
    assert values["scores"]["model"] == dict.fromkeys(METRICS, 1.25) | {
        TRUE: 1.0,
        "distinct captions": 2,
        "words in a caption": 2.0,
    }
    assert values["most frequent"][0] == {"caption": "a dog", "images": 1}
    head, first, _ = table(result)
    assert head.split() == [*METRICS, TRUE, "distinct", "words"]
    assert first.split() == ["model", *["125.0"] * 6, "100.0", "2", "2.0"]


def test_a_generation_config_in_words():
    beam = asdict(GenerationConfig(beam_size=4, length_penalty=0.7))
    assert describe(beam) == "beam size 4, length penalty 0.7"
    sampled = asdict(GenerationConfig(temperature=1.0, top_p=0.9))
    assert describe(sampled) == "temperature 1.0, top p 0.9"  # nothing about the unused beam
