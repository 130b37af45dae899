"""Whether captions are true of drawn scenes, whose content is known."""

from collections.abc import Mapping, Sequence

import numpy

from minicap.data.dataset import Split
from minicap.data.scenes.language import verify
from minicap.data.scenes.scene import Scene
from minicap.evaluation.baselines import most_frequent_caption, others


def truths(captions: Sequence[str], scenes: Sequence[Scene]) -> list[bool]:
    """Decide whether each caption is true: it states enough facts of its scene and no wrong one."""
    return [verify(text, scene).true for text, scene in zip(captions, scenes, strict=True)]


def facts_stated(captions: Sequence[str], scenes: Sequence[Scene]) -> list[int]:
    """Count the attributes of its scene that each caption states, right or wrong.

    A captioner that leaves out what it is unsure of states fewer. A caption that the grammar
    cannot parse states none.
    """
    return [verify(text, scene).facts for text, scene in zip(captions, scenes, strict=True)]


def truth_and_baselines(
    captions: Sequence[str], train: Split, split: Split, scenes: Mapping[str, Scene], seed: int
) -> dict[str, tuple[float, float]]:
    """Compare the true captions of a model with those of two baselines.

    Args:
        captions: the model's captions, one per image of `split`.
        train: the training split, which the most frequent caption comes from.
        split: the split to evaluate on.
        scenes: image -> what was drawn in it.
        seed: of the shuffled baseline.

    Returns:
        For "model", "shuffled features" and "most frequent caption", the fraction of true captions
        and the mean number of facts stated. `minicap.evaluation.baselines` describes the last two.
    """
    drawn = [scenes[name] for name in split.names]
    systems = {
        "model": captions,
        # Given another image's features, the model generates that image's caption.
        "shuffled features": [captions[row] for row in others(len(captions), seed)],
        "most frequent caption": [most_frequent_caption(train.captions)] * len(drawn),
    }
    return {
        name: (
            float(numpy.mean(truths(texts, drawn))),
            float(numpy.mean(facts_stated(texts, drawn))),
        )
        for name, texts in systems.items()
    }
