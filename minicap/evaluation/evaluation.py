"""The result of an evaluation: scores of captions and baselines, warnings, and tables of them."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from tqdm import tqdm

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.scenes.scene import Scene
from minicap.data.vocabulary import SPECIAL, UNK, Vocabulary, tokenise
from minicap.evaluation.metrics import Scorer
from minicap.evaluation.scene_truth import facts_stated, truths
from minicap.generation.config import GenerationConfig

REPEATED = 0.1  # a caption of more than this fraction of the images gives a warning
TRUE = "true"  # the column of true captions
FACTS = "facts"  # that a caption states, image by image


@dataclass(frozen=True)
class Prediction:
    """A caption with its probabilities.

    Attributes:
        text: the caption.
        probabilities: of each word, and of the end if it was generated; none if not known.
        score: what it was ranked by, or None.
    """

    text: str
    probabilities: Sequence[float] = ()
    score: float | None = None


@dataclass(frozen=True)
class SystemScores:
    """The scores of one system's captions.

    Attributes:
        captions: one for each image, in order.
        scores: each metric over all of them.
        each: each metric, image by image.
    """

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
    """The result of an evaluation.

    Attributes:
        images: what was evaluated on.
        systems: the scores of each system by name, the evaluated one first, then the baselines.
        predictions: for each image the candidates of the evaluated system, best first.
        vocabulary: the words it could use, or None if that is not known.
        settings: what the figures depend on, by name.
        notes: what was left out.
    """

    images: EvaluationSet
    systems: dict[str, SystemScores]
    predictions: list[list[Prediction]]
    vocabulary: Vocabulary | None
    settings: dict
    notes: list[str]

    @property
    def evaluated(self) -> SystemScores:
        """The scores of the evaluated system."""
        return next(iter(self.systems.values()))

    @property
    def metrics(self) -> list[str]:
        """The columns of the table."""
        return list(self.evaluated.scores)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with the captions as a whole, one line each."""
        captions = [tuple(tokenise(caption)) for caption in self.evaluated.captions]
        number = len(captions)
        (common, count), *_ = self.repeated(1)
        found = []
        if count == number:
            found.append(
                f'all {number:,} images have the same caption, "{common}": '
                "the captions do not depend on the images"
            )
        else:
            if count > max(2, REPEATED * number):
                found.append(
                    f"{count:,} of {number:,} images ({count / number:.0%}) have the caption "
                    f'"{common}"'
                )
            own, *others = (
                (name, 100 * some.scores["CIDEr"]) for name, some in self.systems.items()
            )
            found += [
                f"CIDEr {own[1]:.1f} is not above {cider:.1f}, that of the baseline: {name}"
                for name, cider in others
                if own[1] <= cider
            ]
        for problem, affected in (
            ("are empty: each scores 0", sum(not some for some in captions)),
            (
                f"contain {UNK}, which no reference has",
                sum(UNK in caption for caption in self.evaluated.captions),
            ),
        ):
            if affected:
                found.append(f"{affected:,} of {number:,} captions {problem}")
        return found

    @property
    def unused(self) -> int | None:
        """How many words of the vocabulary are in no caption."""
        if not self.vocabulary:
            return None
        used = {word for caption in self.evaluated.captions for word in tokenise(caption)}
        return len(set(self.vocabulary.words) - used - set(SPECIAL))

    def repeated(self, count: int) -> list[tuple[str, int]]:
        """The most frequent captions, and how many images have each."""
        return Counter(" ".join(tokenise(c)) for c in self.evaluated.captions).most_common(count)


def score(
    scorer: Scorer,
    images: EvaluationSet,
    systems: Mapping[str, list[str]],
    scenes: Mapping[str, Scene] | None,
) -> dict[str, SystemScores]:
    """Score the captions of each system.

    Args:
        scorer: with the images' references.
        images: what the captions are of.
        systems: captions in the images' order, by the system's name.
        scenes: what was drawn in each image, or None for photos.
    """
    found = {}
    bar = tqdm(systems.items(), unit="set of captions", disable=not sys.stderr.isatty())
    for name, captions in bar:
        scores, each = scorer(dict(zip(images.names, captions, strict=True)))
        if scenes is not None:
            drawn = [scenes[image] for image in images.names]
            true = truths(captions, drawn)
            scores[TRUE], each[TRUE] = float(numpy.mean(true)), list(map(float, true))
            each[FACTS] = list(map(float, facts_stated(captions, drawn)))
        found[name] = SystemScores(captions, scores, each)
    return found


def to_json(evaluation: Evaluation) -> dict:
    """All figures, as scores.json has them: fractions of 1, CIDEr of 10."""
    return {
        **evaluation.settings,
        "scores": {
            name: {
                **some.scores,
                "distinct captions": some.distinct,
                "words in a caption": some.length,
            }
            for name, some in evaluation.systems.items()
        },
        "vocabulary": evaluation.vocabulary and len(evaluation.vocabulary) - len(SPECIAL),
        "words never used": evaluation.unused,
        "most frequent": [
            {"caption": caption, "images": count} for caption, count in evaluation.repeated(5)
        ],
        "warnings": evaluation.warnings,
        "notes": evaluation.notes,
    }


def describe(generation: Mapping) -> str:
    """How captions were generated: beam search's two settings, or those of sampling, and others
    that differ from the default."""
    usual, beam = vars(GenerationConfig()), ("beam_size", "length_penalty")
    sampling = generation["temperature"] > 0
    shown = [
        name
        for name, value in generation.items()
        if (not sampling if name in beam else value != usual[name])
    ]
    return ", ".join(f"{name.replace('_', ' ')} {generation[name]}" for name in shown)


def table(evaluation: Evaluation) -> list[str]:
    """The scores of all systems, times 100, as lines of text."""
    metrics = evaluation.metrics
    columns = [*metrics, "distinct", "words"]
    width = max(map(len, evaluation.systems))
    lines = [" " * width + "".join(f"{name:>9}" for name in columns)]
    for name, some in evaluation.systems.items():
        figures = [f"{100 * some.scores[metric]:9.1f}" for metric in metrics]
        figures += [f"{some.distinct:9,}", f"{some.length:9.1f}"]
        lines.append(name.ljust(width) + "".join(figures))
    return lines


def facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and values that describe the captions as a whole."""
    own, images = evaluation.evaluated, evaluation.images
    number = len(own.captions)
    lengths = [len(tokenise(text)) for texts in images.captions for text in texts]
    (common, count), *_ = evaluation.repeated(1)
    found = [
        ("distinct captions", f"{own.distinct:,} of {number:,}"),
        (
            "most frequent",
            f'"{common}", {count:,} times ({count / number:.1%})' if count > 1 else "none twice",
        ),
        ("mean length", f"{own.length:.1f} words (references {numpy.mean(lengths):.1f})"),
    ]
    if evaluation.vocabulary and evaluation.unused is not None:
        words = len(evaluation.vocabulary) - len(SPECIAL)
        unused = f"{evaluation.unused:,} of {words:,} ({evaluation.unused / words:.1%})"
        found.append(("words never used", unused))
    if TRUE in own.scores:
        mean = numpy.mean(own.each[FACTS])
        found.append(("true captions", f"{own.scores[TRUE]:.1%}, with {mean:.1f} facts each"))
    return found


def summary(evaluation: Evaluation) -> list[str]:
    """What `minicap evaluate` prints."""
    s = evaluation.settings
    return [
        f"evaluated {s['evaluated']}, {s['split']}: {s['images']:,} images with "
        f"{s['references']:,} references in {s['captions']}",
        *([f"generated {describe(s['generation'])}"] if s["generation"] else []),
        f"scores    times 100; tokenizer {s['tokenizer']}; CIDEr: {s['CIDEr']}",
        *(f"          {line}" for line in table(evaluation)),
        *(f"{name:17} {value}" for name, value in facts(evaluation)),
        *(f"note      {note}" for note in evaluation.notes),
        *(f"warning   {warning}" for warning in evaluation.warnings),
    ]


def choose(evaluation: Evaluation, rows: Sequence[int], count: int) -> dict[str, list[int]]:
    """Choose `count` of the images `rows` to show, by CIDEr: the best third, some in between, and
    the worst.

    Returns:
        The rows under each title.
    """
    cider = evaluation.evaluated.each["CIDEr"]
    ranked = sorted(rows, key=lambda row: -cider[row])
    if len(ranked) <= count:
        return {"All by CIDEr, best first": ranked}
    third = count // 3
    between, middle = ranked[third : len(ranked) - third], count - 2 * third
    spread = [between[(2 * k + 1) * len(between) // (2 * middle)] for k in range(middle)]
    chosen = {
        "Best by CIDEr": ranked[:third],
        "In between, best first": spread,
        "Worst by CIDEr": ranked[::-1][:third],
    }
    return {title: some for title, some in chosen.items() if some}
