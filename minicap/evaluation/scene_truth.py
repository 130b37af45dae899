"""Whether captions are true of drawn scenes, whose truth is known."""

from collections.abc import Mapping, Sequence

import numpy

from minicap.data.dataset import Split
from minicap.data.scenes.language import judge
from minicap.data.scenes.scene import Scene
from minicap.evaluation.baselines import most_frequent_caption, others


def truths(captions: Sequence[str], scenes: Sequence[Scene]) -> list[bool]:
    """Whether each caption is true of its scene: says enough, and nothing that is not so."""
    return [judge(text, scene).true for text, scene in zip(captions, scenes, strict=True)]


def facts_stated(captions: Sequence[str], scenes: Sequence[Scene]) -> list[int]:
    """How many attributes of its scene each caption states, right or wrong; 0 for no caption of
    the grammar. A captioner that leaves out what it is not sure of has fewer."""
    return [judge(text, scene).facts for text, scene in zip(captions, scenes, strict=True)]


def truth_and_baselines(
    captions: Sequence[str], train: Split, judged: Split, scenes: Mapping[str, Scene], seed: int
) -> dict[str, tuple[float, float]]:
    """The share of true captions, and the mean number of facts in one, of a model and of two
    baselines.

    Args:
        captions: the model's, one for each picture of `judged`, in its order.
        train: where the most frequent caption comes from.
        judged: the split that the captions are of.
        scenes: what was drawn in each picture, by name.
        seed: of the shuffling.

    Returns:
        By name: "model"; "shuffled features", the model when each picture has the features of
        another, so that it can only guess what is common; "most frequent caption", the one of
        train for every picture. A model that is not far above both baselines has not looked.
    """
    shown = [scenes[name] for name in judged.names]
    writers = {
        "model": captions,
        # With another's features the model writes what it wrote for the other.
        "shuffled features": [captions[row] for row in others(len(captions), seed)],
        "most frequent caption": [most_frequent_caption(train.captions)] * len(shown),
    }
    return {
        name: (
            float(numpy.mean(truths(texts, shown))),
            float(numpy.mean(facts_stated(texts, shown))),
        )
        for name, texts in writers.items()
    }
