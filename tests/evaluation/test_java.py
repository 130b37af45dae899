"""What needs Java: the words of the reference tokenizer, and clear errors when Java fails."""

import shutil
import stat

import pytest

from minicap.evaluation.java import Meteor, ptb_tokenise
from minicap.evaluation.metrics import Scorer, words_of
from minicap.utils.errors import UserError
from tests.evaluation.test_metrics import CANDIDATES, REFERENCES

pytest.importorskip("pycocoevalcap")
java = pytest.mark.skipif(not shutil.which("java"), reason="no java")

TEXTS = [
    "A man's dog isn't red... (well-known)!",
    "",
    "Zwei Mädchen, 犬 – und 1,000 Hunde",
    'He references "no" / yes; and left -- quickly',
    "...",
    "",
]


@java
def test_words_are_those_of_the_reference_tokenizer():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    theirs = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(TEXTS)})
    assert words_of(TEXTS, "ptb") == [theirs[n][0] for n in range(len(TEXTS))]


@java
@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8"])
def test_words_do_not_depend_on_the_locale(locale, monkeypatch):
    """A Turkish Java would write ı for I. Line ends of any kind do not shift words to the next
    caption."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Dfile.encoding=US-ASCII")
    texts = ["IST das Café", "a\nb\r\nc\x85d\u2028e\x0cf", "last"]
    assert ptb_tokenise(texts) == [["ist", "das", "café"], ["a", "b", "c", "d", "e", "f"], ["last"]]


@java
def test_unk_is_one_word():
    assert words_of(["a #UNK# dog"], "ptb") == ["a unk dog"]


@java
def test_scores_depend_on_the_tokenizer():
    """The word "well-known" counts as one or as two."""
    references = {name: [*some, "a well-known cake"] for name, some in REFERENCES.items()}
    candidates = CANDIDATES | {"cake.jpg": "a well known cake"}
    words, ptb = (Scorer(references, tokenizer)(candidates)[1] for tokenizer in ("course", "ptb"))
    assert words["BLEU-1"][2] == pytest.approx(1) and ptb["BLEU-1"][2] == pytest.approx(1 / 2)


@java
@pytest.mark.slow
def test_meteor_under_a_locale_with_decimal_commas(monkeypatch):
    """The locale does not matter, and an empty caption scores 0."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    scorer = Scorer(REFERENCES, meteor=True)
    perfect, _ = scorer({name: some[0] for name, some in REFERENCES.items()})
    total, each = scorer(CANDIDATES | {"cake.jpg": ""})
    assert perfect["METEOR"] == pytest.approx(1)
    assert 0.1 < total["METEOR"] < 0.9 and each["METEOR"][2] == 0


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A `java` that prints an error and exits."""
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho 'no memory' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_failing_java_gives_one_error(broken):
    """And METEOR's destructor does not wait forever."""
    with pytest.raises(UserError, match="PTBTokenizer failed .no memory"):
        ptb_tokenise(["a dog"])
    scorer = Scorer(REFERENCES, meteor=True)
    with pytest.raises(UserError, match="--meteor: Java failed .no memory"):
        scorer(CANDIDATES)
    del scorer  # a warning here would be an error


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--tokenizer ptb needs Java, and `java` is not on"):
        Scorer(REFERENCES, "ptb")
    with pytest.raises(UserError, match="--meteor needs Java"):
        Meteor()
