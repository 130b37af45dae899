"""The options of a query string."""

import pytest

from minicap.generation.config import BEAM, GenerationConfig
from minicap.server.question import OPTIONS, Question, read_question
from minicap.utils.errors import UserError


def test_nothing_asked_means_the_defaults():
    assert read_question([]) == Question() and Question().generation == BEAM


def test_options_of_generation_and_of_the_answer():
    query = [("beam_size", "3"), ("length_penalty", "0"), ("tree", "true"), ("cells", "3,17")]
    question = read_question(query)
    assert question.generation == GenerationConfig(beam_size=3, length_penalty=0.0)
    assert question.tree and question.cell_numbers() == [3, 17] and not question.sampling
    assert read_question([("temperature", "1")]).sampling
    assert set(OPTIONS) >= {"prefix", "top_p", "count", "candidates", "seed"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("beam_size", "21", "beam_size must be from 1 to 20"),
        ("beam_size", "0", "--beam-size must be from 1"),
        ("beam_size", "two", "beam_size must be a whole number, not 'two'"),
        ("temperature", "nan", "--temperature must be from 0"),
        ("temperature", "warm", "temperature must be a number"),
        ("count", "0", "count must be from 1 to 20"),
        ("candidates", "1000", "candidates must be from 0 to 20"),
        ("seed", "-1", "seed must be 0 or more"),
        ("seed", str(2**63), "below 2"),
        ("tree", "yes", "tree must be true or false"),
        ("cells", "3;4", "cells must be auto"),
        ("cells", "1," * 20 + "1", "at most 12 numbers"),
        ("cells", "9999999", "cells must be auto"),
        ("prefix", "a" * 1001, "prefix has 1,001 characters"),
        ("colour", "red", "unknown option 'colour': choose from beam_size"),
    ],
)
def test_a_wrong_value_is_named(name, value, message):
    with pytest.raises(UserError, match=message):
        read_question([(name, value)])


def test_sampling_has_no_tree():
    with pytest.raises(UserError, match="tree is for beam search"):
        read_question([("tree", "1"), ("temperature", "1")])
