"""Tokenisers: words with marks, apostrophes and hyphens, and text without spaces."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.tokenisers import TOKENISERS, advice, characters, course, join, unicode
from minicap.data.vocabulary import Vocabulary

HINDI = "\u090f\u0915 \u0932\u0921\u093c\u0915\u0940 \u0915\u093f\u0924\u093e\u092c"  # girl, book
CHINESE = "\u4e00\u4e2a\u7537\u4eba\u9a91\u7740\u9a6c\u3002"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's T-shirt.", ["a", "man's", "t-shirt"]),
        ("A man\u2019s T\u2011shirt", ["a", "man's", "t-shirt"]),
        ("'quoted' - words -- here", ["quoted", "words", "here"]),
        ("rock 'n' roll, 3.5 m", ["rock", "n", "roll", "3", "5", "m"]),
        ("cafe\u0301", ["caf\u00e9"]),
        (HINDI, HINDI.split()),
        ("", []),
        ("\u0301", []),  # a mark without a letter
    ],
)
def test_unicode(text, tokens):
    assert unicode(text) == [unicodedata.normalize("NFC", token) for token in tokens]


def test_characters():
    assert characters(CHINESE) == list(CHINESE[:-1])
    assert characters(HINDI[3:8]) == ["\u0932", "\u0921\u093c", "\u0915\u0940"]
    assert join(characters(CHINESE), "characters") == CHINESE[:-1]


def test_course_is_the_notebook_s_rule():
    assert course("A dog's ball.") == ["a", "dog", "s", "ball"]


@given(st.text(), st.sampled_from(sorted(TOKENISERS)))
def test_tokens_of_joined_tokens_are_the_same(text, name):
    tokens = TOKENISERS[name](text)
    assert TOKENISERS[name](join(tokens, name)) == tokens
    assert all(token and not token.isspace() for token in tokens)


def test_advice():
    assert "--tokenizer characters" in advice([CHINESE], "course")
    assert "--tokenizer characters" in advice([CHINESE], "unicode")
    assert "--tokenizer unicode" in advice([HINDI], "course")
    assert advice(["A dog's ball"], "course") == advice([HINDI], "unicode") == ""
    assert advice([CHINESE], "characters") == advice([], "course") == ""


def test_a_vocabulary_knows_its_tokeniser():
    v = Vocabulary.of([CHINESE], 1, "characters")
    ids, lengths = v.encode([CHINESE], 20)
    assert lengths[0] == 9 and v.decode(ids[0, 1:]) == CHINESE[:-1]
    assert "tokeniser" in (v.difference(Vocabulary(v.words)) or "")
