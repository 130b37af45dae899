"""Caption scores: bitwise those of the reference implementation, and those of a brute force."""

import math
import re
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicap.data.vocabulary import tokenise
from minicap.evaluation.metrics import METRICS, Scorer, scores
from minicap.utils.errors import UserError

pytest.importorskip("pycocoevalcap")

REFERENCES = {
    "beach.jpg": ["A dog runs along the beach .", "A wet, brown dog near the water!"],
    "bus.jpg": ["A red bus turns left .", "The red bus turns.", "A bus in a narrow street ."],
    "cake.jpg": ["Two children eat cake", "A boy and a girl at a table with a cake ."],
    "café.jpg": ["Ein Café in Köln", "People sit outside a café , drinking coffee ."],
    "hill.jpg": ["A man rides his bike up a hill up a hill up a hill ."],
}
CANDIDATES = {
    "beach.jpg": "a dog runs near the water",
    "bus.jpg": "a red red bus turns left in a narrow street",
    "cake.jpg": "children",
    "café.jpg": "people sit outside a café",
    "hill.jpg": "a man rides a horse up a hill",
}
HYPHENATED = {name: text.replace(" ", " - ").upper() for name, text in CANDIDATES.items()}


def ngrams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu_by_hand(candidates, references):
    """BLEU-1..4 of a corpus (Papineni et al. 2002), with the closest reference's length."""
    length = wanted = 0
    right, tried = [0] * 4, [0] * 4
    for name, text in candidates.items():
        words, some = tokenise(text), [tokenise(text) for text in references[name]]
        length += len(words)
        wanted += min((abs(len(other) - len(words)), len(other)) for other in some)[1]
        for n in range(4):
            mine = ngrams(words, n + 1)
            tried[n] += sum(mine.values())
            right[n] += sum(
                min(k, max(ngrams(o, n + 1)[run] for o in some)) for run, k in mine.items()
            )
    brevity = min(1.0, math.exp(1 - wanted / length))
    precisions = [a / b for a, b in zip(right, tried, strict=True)]
    return [brevity * math.prod(precisions[:n]) ** (1 / n) for n in (1, 2, 3, 4)]


def rouge_by_hand(candidate, references):
    """ROUGE-L with beta 1.2 of one caption (Lin 2004), precision and recall each the best."""
    words = tokenise(candidate)

    def common(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + common(a[1:], b[1:])
        return max(common(a[1:], b), common(a, b[1:]))

    some = [tokenise(text) for text in references]
    precision = max(common(words, other) / len(words) for other in some)
    recall = max(common(words, other) / len(other) for other in some)
    return precision and 2.44 * precision * recall / (recall + 1.44 * precision)


def cider_by_hand(candidates, references):
    """CIDEr-D of each image (Vedantam et al. 2015): clipped, with sigma 6, times 10. COCO's
    code takes the number of pairs of words for a caption's length."""
    number = len(references)

    def weights(words, n):
        frequency = {
            g: sum(
                any(ngrams(tokenise(text), n)[g] for text in some) for some in references.values()
            )
            for g in ngrams(words, n)
        }
        return {g: k * math.log(number / max(1, frequency[g])) for g, k in ngrams(words, n).items()}

    def norm(vector):
        return math.sqrt(sum(value**2 for value in vector.values()))

    def likeness(words, other, n):
        a, b = weights(words, n), weights(other, n)
        dot = sum(min(value, b.get(run, 0)) * b.get(run, 0) for run, value in a.items())
        apart = max(len(words) - 1, 0) - max(len(other) - 1, 0)
        both = norm(a) * norm(b)
        return dot / both * math.exp(-(apart**2) / 72) if both else 0.0

    return [
        10
        * fmean(
            likeness(tokenise(text), tokenise(o), n) for o in references[name] for n in (1, 2, 3, 4)
        )
        for name, text in candidates.items()
    ]


def test_scores_are_those_of_the_reference_implementation():
    """Exactly, on captions that are already tokenised."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references = {name: [" ".join(tokenise(t)) for t in some] for name, some in REFERENCES.items()}
    candidates = {name: [" ".join(tokenise(text))] for name, text in CANDIDATES.items()}
    bleu, bleu_each = Bleu(4).compute_score(references, candidates, verbose=0)
    rouge, rouge_each = Rouge().compute_score(references, candidates)
    cider, cider_each = Cider().compute_score(references, candidates)
    total, each = Scorer(REFERENCES)(CANDIDATES)
    assert list(total) == list(METRICS)
    assert [*total.values()] == [*bleu, rouge, cider]
    assert [each[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == bleu_each
    assert each["ROUGE-L"] == rouge_each.tolist() and each["CIDEr"] == cider_each.tolist()
    assert scores(CANDIDATES, REFERENCES) == total


def test_scores_are_those_of_a_brute_force():
    """Which is written from the papers alone."""
    total, each = Scorer(REFERENCES)(CANDIDATES)
    assert [total[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx(
        bleu_by_hand(CANDIDATES, REFERENCES), rel=1e-8
    )
    rouge = [rouge_by_hand(text, REFERENCES[name]) for name, text in CANDIDATES.items()]
    assert each["ROUGE-L"] == pytest.approx(rouge, rel=1e-12)
    assert each["CIDEr"] == pytest.approx(cider_by_hand(CANDIDATES, REFERENCES), rel=1e-12)
    assert total["ROUGE-L"] == pytest.approx(fmean(rouge)) and total["ROUGE-L"] > 0.4
    assert total["CIDEr"] == pytest.approx(fmean(each["CIDEr"])) and total["CIDEr"] > 1


def test_a_reference_scores_one():
    found = scores({name: some[0] for name, some in REFERENCES.items()}, REFERENCES)
    assert all(found[name] == pytest.approx(1, abs=1e-8) for name in METRICS[:5])
    assert found["CIDEr"] > scores(CANDIDATES, REFERENCES)["CIDEr"]


def test_case_and_punctuation_do_not_matter():
    assert scores(HYPHENATED, REFERENCES) == scores(CANDIDATES, REFERENCES)


@given(st.permutations(list(REFERENCES)), st.permutations(list(REFERENCES)))
def test_the_order_of_images_does_not_matter(first, second):
    shuffled = Scorer({name: REFERENCES[name] for name in first})
    total, each = shuffled({name: CANDIDATES[name] for name in second})
    assert total == pytest.approx(scores(CANDIDATES, REFERENCES), rel=1e-12)
    cider = dict(zip(REFERENCES, Scorer(REFERENCES)(CANDIDATES)[1]["CIDEr"], strict=True))
    assert each["CIDEr"] == pytest.approx([cider[name] for name in first], rel=1e-12)


def test_nothing_is_printed(capsys):
    scores(CANDIDATES, REFERENCES)
    assert capsys.readouterr() == ("", "")


def test_document_frequencies_are_named():
    expected = "document frequencies from the references of these 5 images"
    assert Scorer(REFERENCES).frequencies == expected


WORDS = st.lists(st.sampled_from(["a", "dog", "#UNK#", "été", "犬", "🐕", ".", "Ⅷ"]), max_size=9)


@given(st.lists(WORDS, min_size=5, max_size=5))
def test_any_captions_have_scores_in_range(texts):
    """Empty, only #UNK#, any script: finite and from 0 to 1, or to 10 for CIDEr."""
    total, each = Scorer(REFERENCES)(dict(zip(REFERENCES, map(" ".join, texts), strict=True)))
    for metric in METRICS:
        highest = 10 if metric == "CIDEr" else 1 + 1e-6
        assert all(0 <= score <= highest for score in [total[metric], *each[metric]])


@pytest.mark.parametrize("text", ["", " ", "...", "🐕", "#UNK#", "#UNK# #UNK#"])
def test_an_empty_caption_scores_zero(text):
    """And does not change the scores of the others."""
    _, before = Scorer(REFERENCES)(CANDIDATES)
    _, each = Scorer(REFERENCES)(CANDIDATES | {"bus.jpg": text})
    for metric in METRICS:
        assert each[metric][1] == pytest.approx(0, abs=1e-6)
        assert each[metric][:1] + each[metric][2:] == before[metric][:1] + before[metric][2:]


def test_unk_is_one_word():
    """It counts towards the length of the caption."""
    one = scores(CANDIDATES | {"bus.jpg": "a #UNK# bus"}, REFERENCES)
    assert one == scores(CANDIDATES | {"bus.jpg": "a zyzzyva bus"}, REFERENCES)


def test_unk_matches_no_reference():
    """Not even one that contains the same text."""
    references = REFERENCES | {"bus.jpg": ["an unk <unk> #UNK#"]}
    _, each = Scorer(references)(CANDIDATES | {"bus.jpg": "#UNK# #UNK#"})
    assert all(each[metric][1] == pytest.approx(0, abs=1e-6) for metric in METRICS)


@pytest.mark.parametrize(("number", "line"), [(0, "there are none"), (1, "there is only one")])
def test_fewer_than_two_images_are_refused(number, line):
    some = dict(list(REFERENCES.items())[:number])
    with pytest.raises(UserError, match=f"needs two images or more; {line}$"):
        Scorer(some)


@pytest.mark.parametrize(
    ("said", "line"),
    [([], "bus.jpg has no reference"), (["a bus", "?!"], "bus.jpg has a reference without a word")],
)
def test_references_without_words_are_refused(said, line):
    """An empty reference would make an empty caption perfect."""
    with pytest.raises(UserError, match=line):
        Scorer(REFERENCES | {"bus.jpg": said})


def test_images_without_captions_or_references_are_refused():
    scorer = Scorer(REFERENCES)
    with pytest.raises(UserError, match=r"^captions but no references: new, newer \(2 in all\)"):
        scorer(CANDIDATES | {"new": "a", "newer": "b"})
    with pytest.raises(UserError, match=r"^references but no captions: bus.jpg \(1 in"):
        scorer({name: text for name, text in CANDIDATES.items() if name != "bus.jpg"})


def test_the_example_of_the_docs():
    """The Python example of docs/evaluation.md."""
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    before, call = example.split("\n\n")
    names: dict = {}
    exec(before + "\nfound = " + call, names)
    assert list(names["found"]) == list(METRICS) and 0.5 < names["found"]["BLEU-1"] < 1


def test_without_pycocoevalcap(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[metrics\]'"):
        scores(CANDIDATES, REFERENCES)
