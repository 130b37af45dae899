"""One evaluation: captions, their scores beside the floors', and what is wrong with them."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from tqdm import tqdm

from minicap.data.judged import Pictures
from minicap.data.scenes import Scene
from minicap.data.vocabulary import SPECIAL, UNK, Vocabulary, tokenise
from minicap.ensemble import encoder_warnings, generate
from minicap.errors import UserError
from minicap.generate import Caption, Writing
from minicap.metrics import Judge
from minicap.model import Model
from minicap.truth import facts as stated
from minicap.truth import truths

TOGETHER = 256  # pictures that are captioned at once
REPEATED = 0.1  # a caption under more than this share of the pictures is spoken of
TRUE = "true"  # the column of true captions
FACTS = "facts"  # that a caption states, picture by picture


@dataclass(frozen=True)
class Written:
    """A caption with how sure its writer was.

    text: the caption; probabilities: of each of its words, and of its end if that was written, or
    none where they are not known; score: what it was ranked by, or None.
    """

    text: str
    probabilities: Sequence[float] = ()
    score: float | None = None


@dataclass(frozen=True)
class Row:
    """What one writer's captions come to. captions: one for each picture, in the pictures' order;
    scores: each metric over all of them; each: the same, picture by picture."""

    captions: list[str]
    scores: dict[str, float]
    each: dict[str, list[float]]

    @property
    def distinct(self) -> int:
        """Different captions, as words."""
        return len({tuple(tokenise(caption)) for caption in self.captions})

    @property
    def length(self) -> float:
        """Words in a caption, the mean."""
        return float(numpy.mean([len(tokenise(caption)) for caption in self.captions]))


@dataclass(frozen=True)
class Evaluation:
    """What there is to tell. All of it but the floors is about the first of `rows`, the judged one.

    rows: writer -> its row; written: for each picture the candidates, best first; vocabulary: the
    words that could be written, or None where that is not known; settings: what the figures depend
    on, by name; notes: what was left out.
    """

    pictures: Pictures
    rows: dict[str, Row]
    written: list[list[Written]]
    vocabulary: Vocabulary | None
    settings: dict
    notes: list[str]

    @property
    def judged(self) -> Row:
        """The row that all is about."""
        return next(iter(self.rows.values()))

    @property
    def metrics(self) -> list[str]:
        """The columns of the table."""
        return list(self.judged.scores)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the captions as a lot, in a line each."""
        captions = [tuple(tokenise(caption)) for caption in self.judged.captions]
        number = len(captions)
        (common, count), *_ = self.repeated(1)
        found = []
        if count == number:
            found.append(
                f'every one of the {number:,} pictures has the same caption, "{common}": '
                "nothing of the pictures reaches the words"
            )
        else:
            if count > max(2, REPEATED * number):
                found.append(
                    f'the caption "{common}" stands under {count:,} of {number:,} pictures '
                    f"({count / number:.0%})"
                )
            ours, *floors = ((name, 100 * row.scores["CIDEr"]) for name, row in self.rows.items())
            found += [
                f"CIDEr {ours[1]:.1f} is not above {cider:.1f}, that of the floor: {name}"
                for name, cider in floors
                if ours[1] <= cider
            ]
        for kind, odd in (
            ("are empty: each scores 0", sum(not some for some in captions)),
            (
                f"hold {UNK}, which counts as a word of no reference",
                sum(UNK in caption for caption in self.judged.captions),
            ),
        ):
            if odd:
                found.append(f"{odd:,} of {number:,} captions {kind}")
        return found

    @property
    def unused(self) -> int | None:
        """How many words of the vocabulary are in no caption."""
        if not self.vocabulary:
            return None
        used = {word for caption in self.judged.captions for word in tokenise(caption)}
        return len(set(self.vocabulary.words) - used - set(SPECIAL))

    def repeated(self, count: int) -> list[tuple[str, int]]:
        """The captions that are written most often, and under how many pictures."""
        return Counter(" ".join(tokenise(c)) for c in self.judged.captions).most_common(count)


def check_features(models: Sequence[Model], pictures: Pictures) -> list[str]:
    """Notes on whether the models have learned from such features.

    UserError: pictures without features, or with those of another encoder than the models'.
    """
    if pictures.features is None:
        raise UserError("the model needs the pictures' features: name them with --features")
    return encoder_warnings(models, pictures.encoder or {}, pictures.features.shape[1])


def write(
    models: Sequence[Model], pictures: Pictures, writing: Writing, rng: numpy.random.Generator
) -> list[list[Written]]:
    """The candidates for each picture, best first. rng: for sampling."""
    features = pictures.features
    assert features is not None
    written = []
    with tqdm(total=len(features), unit="picture", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(features), TOGETHER):
            some = features[start : start + TOGETHER]
            for captions in generate(models, some, writing, rng=rng):
                written.append([as_written(models[0].vocabulary, each) for each in captions])
                bar.update()
    return written


def as_written(vocabulary: Vocabulary, caption: Caption) -> Written:
    """A caption in words and probabilities."""
    probabilities = numpy.exp(caption.log_probabilities).tolist()
    return Written(vocabulary.decode(caption.ids), probabilities, caption.score)


def score(
    judge: Judge,
    pictures: Pictures,
    writers: Mapping[str, list[str]],
    scenes: Mapping[str, Scene] | None,
) -> dict[str, Row]:
    """A row for each writer. judge: with the pictures' references; writers: name -> captions in the
    pictures' order; scenes: picture -> what was drawn, or None for photos."""
    rows = {}
    bar = tqdm(writers.items(), unit="set of captions", disable=not sys.stderr.isatty())
    for writer, captions in bar:
        scores, each = judge(dict(zip(pictures.names, captions, strict=True)))
        if scenes is not None:
            shown = [scenes[name] for name in pictures.names]
            true = truths(captions, shown)
            scores[TRUE], each[TRUE] = float(numpy.mean(true)), list(map(float, true))
            each[FACTS] = list(map(float, stated(captions, shown)))
        rows[writer] = Row(captions, scores, each)
    return rows


def to_json(evaluation: Evaluation) -> dict:
    """All figures, as scores.json has them: fractions of 1, CIDEr of 10."""
    return {
        **evaluation.settings,
        "scores": {
            name: {
                **row.scores,
                "distinct captions": row.distinct,
                "words in a caption": row.length,
            }
            for name, row in evaluation.rows.items()
        },
        "vocabulary": evaluation.vocabulary and len(evaluation.vocabulary) - len(SPECIAL),
        "words never used": evaluation.unused,
        "most frequent": [
            {"caption": caption, "pictures": count} for caption, count in evaluation.repeated(5)
        ],
        "warnings": evaluation.warnings,
        "notes": evaluation.notes,
    }


def manner(writing: Mapping) -> str:
    """How captions were written, in words: the beam's two settings, unless words were drawn, and
    others that were chosen."""
    usual, beam = vars(Writing()), ("beams", "alpha")
    drawn = writing["temperature"] > 0
    shown = [n for n in writing if (not drawn if n in beam else writing[n] != usual[n])]
    return ", ".join(f"{name.replace('_', '-')} {writing[name]}" for name in shown)


def table(evaluation: Evaluation) -> list[str]:
    """The scores beside the floors', times 100, as lines of text."""
    metrics = evaluation.metrics
    columns = [*metrics, "distinct", "words"]
    wide = max(map(len, evaluation.rows))
    lines = [" " * wide + "".join(f"{name:>9}" for name in columns)]
    for name, row in evaluation.rows.items():
        figures = [f"{100 * row.scores[metric]:9.1f}" for metric in metrics]
        figures += [f"{row.distinct:9,}", f"{row.length:9.1f}"]
        lines.append(name.ljust(wide) + "".join(figures))
    return lines


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """What the captions are like as a lot: names and values, in words."""
    judged, pictures = evaluation.judged, evaluation.pictures
    number = len(judged.captions)
    said = [len(tokenise(text)) for texts in pictures.captions for text in texts]
    (common, count), *_ = evaluation.repeated(1)
    found = [
        ("distinct captions", f"{judged.distinct:,} of {number:,}"),
        (
            "most frequent",
            f'"{common}", {count:,} times ({count / number:.1%})' if count > 1 else "none twice",
        ),
        ("mean length", f"{judged.length:.1f} words (references {numpy.mean(said):.1f})"),
    ]
    if evaluation.vocabulary and evaluation.unused is not None:
        words = len(evaluation.vocabulary) - len(SPECIAL)
        unused = f"{evaluation.unused:,} of {words:,} ({evaluation.unused / words:.1%})"
        found.append(("words never used", unused))
    if TRUE in judged.scores:
        mean = numpy.mean(judged.each[FACTS])
        found.append(("true captions", f"{judged.scores[TRUE]:.1%}, with {mean:.1f} facts each"))
    return found


def choose(evaluation: Evaluation, rows: Sequence[int], count: int) -> dict[str, list[int]]:
    """Which of the pictures `rows` to show, `count` of them: the best third by CIDEr, as many from
    all between, and the worst, worst first. Title -> rows."""
    cider = evaluation.judged.each["CIDEr"]
    ranked = sorted(rows, key=lambda row: -cider[row])
    if len(ranked) <= count:
        return {"All by CIDEr, best first": ranked}
    third = count // 3
    between, middle = ranked[third : len(ranked) - third], count - 2 * third
    spread = [between[(2 * k + 1) * len(between) // (2 * middle)] for k in range(middle)]
    chosen = {
        "Best by CIDEr": ranked[:third],
        "Between, best first": spread,
        "Worst by CIDEr": ranked[::-1][:third],
    }
    return {title: some for title, some in chosen.items() if some}
