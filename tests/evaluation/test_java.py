"""What needs Java: the same words as the reference's tokeniser, and clear lines where it fails."""

import shutil
import stat

import pytest

from minicap.evaluation.java import Meteor, ptb_tokenise
from minicap.evaluation.metrics import Judge, words_of
from minicap.utils.errors import UserError
from tests.test_metrics import CANDIDATES, REFERENCES

pytest.importorskip("pycocoevalcap")
java = pytest.mark.skipif(not shutil.which("java"), reason="no java")

TEXTS = [
    "A man's dog isn't red... (well-known)!",
    "",
    "Zwei Mädchen, 犬 – und 1,000 Hunde",
    'He said "no" / yes; and left -- quickly',
    "...",
    "",
]


@java
def test_words_are_those_of_the_reference_tokeniser():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    theirs = PTBTokenizer().tokenize({n: [{"caption": text}] for n, text in enumerate(TEXTS)})
    assert words_of(TEXTS, "ptb") == [theirs[n][0] for n in range(len(TEXTS))]


@java
@pytest.mark.parametrize("locale", ["C", "de_DE.UTF-8"])
def test_words_do_not_depend_on_the_locale(locale, monkeypatch):
    """A Turkish Java would write ı for I. Nor do line ends of any kind shift a caption's words to
    the next caption."""
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Dfile.encoding=US-ASCII")
    texts = ["IST das Café", "a\nb\r\nc\x85d\u2028e\x0cf", "last"]
    assert ptb_tokenise(texts) == [["ist", "das", "café"], ["a", "b", "c", "d", "e", "f"], ["last"]]


@java
def test_unk_is_one_word_here_too():
    assert words_of(["a #UNK# dog"], "ptb") == ["a unk dog"]


@java
def test_the_tokeniser_matters_and_both_can_judge():
    """ "well-known" is one word or two."""
    said = {name: [*some, "a well-known cake"] for name, some in REFERENCES.items()}
    written = CANDIDATES | {"cake.jpg": "a well known cake"}
    words, ptb = (Judge(said, tokenizer)(written)[1] for tokenizer in ("words", "ptb"))
    assert words["BLEU-1"][2] == pytest.approx(1) and ptb["BLEU-1"][2] == pytest.approx(1 / 2)


@java
@pytest.mark.slow
def test_meteor_under_a_locale_with_decimal_commas(monkeypatch):
    """Java gets its language from here, and an empty caption scores 0."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    judge = Judge(REFERENCES, meteor=True)
    perfect, _ = judge({name: some[0] for name, some in REFERENCES.items()})
    total, each = judge(CANDIDATES | {"cake.jpg": ""})
    assert perfect["METEOR"] == pytest.approx(1)
    assert 0.1 < total["METEOR"] < 0.9 and each["METEOR"][2] == 0


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A `java` that says something and dies."""
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho 'no memory' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_java_that_dies_gives_one_line(broken):
    """METEOR's own farewell does not wait for ever."""
    with pytest.raises(UserError, match="PTBTokenizer fails .no memory"):
        ptb_tokenise(["a dog"])
    judge = Judge(REFERENCES, meteor=True)
    with pytest.raises(UserError, match="--meteor: Java fails .no memory"):
        judge(CANDIDATES)
    del judge  # and ends in silence: a warning would be an error here


def test_no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--tokenizer ptb needs Java, and there is no `java` here"):
        Judge(REFERENCES, "ptb")
    with pytest.raises(UserError, match="--meteor needs Java"):
        Meteor()
