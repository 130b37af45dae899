"""The result of an evaluation: captions, their scores, and warnings about them."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from tqdm import tqdm

from minicap.data.evaluation_set import EvaluationSet
from minicap.data.scenes.scene import Scene
from minicap.data.tokenisers import join
from minicap.data.vocabulary import SPECIAL, UNK, Vocabulary
from minicap.evaluation.metrics import Scorer, words_of
from minicap.evaluation.scene_truth import facts_stated, truths

REPEATED = 0.1  # a caption of more than this fraction of the images gives a warning
TRUE = "true"  # name of the score that says whether a caption is true of its scene
FACTS = "facts"  # name of the number of facts a caption states; only known image by image


@dataclass(frozen=True)
class Prediction:
    """A caption with its probabilities.

    Attributes:
        text: the caption.
        probabilities: one per word, and one for the end token if it was generated. Empty if they
            are not known.
        score: what the candidates were ranked by (higher is better), or None if not known.
        ids: of its tokens, with #END# if it was generated. Empty if they are not known.
    """

    text: str
    probabilities: Sequence[float] = ()
    score: float | None = None
    ids: Sequence[int] = ()


@dataclass(frozen=True)
class SystemScores:
    """The captions of one system (a model, a results file or a baseline) and their scores.

    Attributes:
        captions: one per image, in order.
        words: the same, tokenised; words are joined by spaces.
        scores: metric -> its value over all images.
        each: metric -> its value for each image.
    """

    captions: list[str]
    words: list[str]
    scores: dict[str, float]
    each: dict[str, list[float]]

    @property
    def distinct(self) -> int:
        """The number of different captions; case and punctuation do not count."""
        return len(set(self.words))

    @property
    def length(self) -> float:
        """The mean number of words in a caption."""
        return float(numpy.mean([len(caption.split()) for caption in self.words]))


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        images: the evaluation set.
        systems: the scores of each system by name: the evaluated one first, then the baselines.
        predictions: for each image the candidates of the evaluated system, best first.
        vocabulary: the model's vocabulary, or None if captions were read from a file.
        settings: what the scores depend on, by name.
        notes: what was left out, one line each.
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
        """The names of the metrics, in the order of the table's columns."""
        return list(self.evaluated.scores)

    @property
    def warnings(self) -> list[str]:
        """What is suspicious about the captions as a whole, one line each."""
        captions = self.evaluated.words
        number = len(captions)
        (caption, count), *_ = self.most_frequent(1)
        lines = []
        if count == number:
            lines.append(
                f'all {number:,} images have the same caption, "{caption}": '
                "the captions do not depend on the images"
            )
        else:
            if count > max(2, REPEATED * number):
                lines.append(
                    f"{count:,} of {number:,} images ({count / number:.0%}) have the caption "
                    f'"{caption}"'
                )
            (_, own), *baselines = (
                (name, 100 * system.scores["CIDEr"]) for name, system in self.systems.items()
            )
            lines += [
                f"CIDEr {own:.1f} is not above {cider:.1f}, that of the baseline: {name}"
                for name, cider in baselines
                if own <= cider
            ]
        if empty := sum(not words for words in captions):
            lines.append(f"{empty:,} of {number:,} captions are empty: each scores 0")
        if unknown := sum(UNK in caption for caption in self.evaluated.captions):
            lines.append(
                f"{unknown:,} of {number:,} captions contain {UNK}, which matches no reference"
            )
        return lines

    @property
    def unused(self) -> int | None:
        """The number of vocabulary words that no caption contains; None without a vocabulary."""
        if not self.vocabulary:
            return None
        tokens = self.vocabulary.tokenise
        used = {word for caption in self.evaluated.captions for word in tokens(caption)}
        return len(set(self.vocabulary.words) - used - set(SPECIAL))

    def most_frequent(self, count: int) -> list[tuple[str, int]]:
        """Return the `count` most frequent captions and the number of images with each."""
        common = Counter(self.evaluated.words).most_common(count)
        tokenizer = self.settings["tokenizer"]
        return [(join(words.split(), tokenizer), times) for words, times in common]


def score(
    scorer: Scorer,
    images: EvaluationSet,
    systems: Mapping[str, list[str]],
    scenes: Mapping[str, Scene] | None,
) -> dict[str, SystemScores]:
    """Score the captions of each system.

    Args:
        scorer: has the references of `images`.
        images: the evaluation set.
        systems: system -> its captions, in the order of the images.
        scenes: image -> what was drawn in it, or None for photos.

    Returns:
        System -> its scores. With scenes they include whether each caption is true.
    """
    scored = {}
    bar = tqdm(systems.items(), unit="system", disable=not sys.stderr.isatty())
    for name, captions in bar:
        scores, each = scorer(dict(zip(images.names, captions, strict=True)))
        if scenes is not None:
            drawn = [scenes[image] for image in images.names]
            true = truths(captions, drawn)
            scores[TRUE], each[TRUE] = float(numpy.mean(true)), list(map(float, true))
            each[FACTS] = list(map(float, facts_stated(captions, drawn)))
        scored[name] = SystemScores(captions, words_of(captions, scorer.tokenizer), scores, each)
    return scored
