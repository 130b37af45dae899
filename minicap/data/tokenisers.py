"""Tokenisers: captions to words or characters, and back.

course       the rule of the original course notebook: lower case, split at everything that is not a
             letter, digit or underscore. Combining marks split words, which is wrong for Hindi.
unicode      letters keep their marks, and apostrophes and hyphens in words stay: man's, t-shirt
characters   each letter is a token, with its marks: for text without spaces, like Chinese or Thai
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal, get_args

TokenizerName = Literal["course", "unicode", "characters"]
JOINERS = "\u200c\u200d"  # invisible, between the letters of a word in Persian and Hindi
UNSPACED = re.compile(  # scripts that are written without spaces between words
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
)


def course(caption: str) -> list[str]:
    """Split at everything that is not a letter, digit or underscore; lower case.

    Example:
        >>> course("A dog's ball.")
        ['a', 'dog', 's', 'ball']
    """
    return [token for token in re.split(r"\W+", caption.lower()) if token]


def unicode(caption: str) -> list[str]:
    """Split into words of letters with their marks; lower case, composed.

    Example:
        >>> unicode("A dog\u2019s T-shirt.")
        ['a', "dog's", 't-shirt']
    """
    return _words().findall(_folded(caption))


def characters(caption: str) -> list[str]:
    """Split into letters with their marks, and digits; lower case, composed.

    Example:
        >>> characters("\u4e00\u53ea\u72d7.")
        ['\u4e00', '\u53ea', '\u72d7']
    """
    return _letters().findall(_folded(caption))


TOKENISERS: dict[str, Callable[[str], list[str]]] = dict(
    zip(get_args(TokenizerName), (course, unicode, characters), strict=True)
)


def join(tokens: Iterable[str], tokenizer: str) -> str:
    """Make text of tokens, as it is written."""
    return ("" if tokenizer == "characters" else " ").join(tokens)


def advice(captions: Iterable[str], tokenizer: str) -> str:
    """Name the tokeniser that fits some captions better; empty if the given one fits."""
    text = "".join(captions)
    letters = sum(map(str.isalpha, text))
    if tokenizer != "characters" and len(UNSPACED.findall(text)) > letters / 2 > 0:
        return "captions seem to have no spaces between words: add --tokenizer characters"
    if tokenizer == "course" and any(unicodedata.category(c)[0] == "M" for c in text):
        return (
            "captions have combining marks, at which the tokeniser `course` splits words: "
            "add --tokenizer unicode"
        )
    return ""


def _folded(caption: str) -> str:
    """Lower case, composed, with plain apostrophes and hyphens."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", caption).lower())
    return re.sub("[\u2010\u2011]", "-", re.sub("[\u2019\u02bc\uff07]", "'", text))


@functools.cache
def _marks() -> str:
    """All combining marks, as ranges of a regular expression's character class."""
    marks = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "M"]
    ranges: list[list[str]] = []
    for mark in marks:
        if ranges and ord(mark) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = mark
        else:
            ranges.append([mark, mark])
    return "".join(f"{first}-{last}" for first, last in ranges)


@functools.cache
def _words() -> re.Pattern[str]:
    inside = rf"[\w{_marks()}{JOINERS}]"
    return re.compile(rf"\w{inside}*(?:['-]\w{inside}*)*")


@functools.cache
def _letters() -> re.Pattern[str]:
    return re.compile(rf"\w[{_marks()}{JOINERS}]*")
