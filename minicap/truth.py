"""Whether captions are true of drawn scenes, whose truth is known."""

from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import array_module, to_device
from minicap.data.dataset import Split
from minicap.data.scenes import Scene
from minicap.data.scenes.language import judge
from minicap.floors import most_frequent_caption, others
from minicap.generate import BEAM
from minicap.model import Model


def truths(captions: Sequence[str], scenes: Sequence[Scene]) -> list[bool]:
    """Whether each caption is true of its scene: says enough, and nothing that is not so."""
    return [judge(text, scene).true for text, scene in zip(captions, scenes, strict=True)]


def facts(captions: Sequence[str], scenes: Sequence[Scene]) -> list[int]:
    """How many attributes of its scene each caption states, right or wrong; 0 for no caption of
    the grammar. A captioner that leaves out what it is not sure of has fewer."""
    return [judge(text, scene).facts for text, scene in zip(captions, scenes, strict=True)]


def truth_and_floors(
    model: Model, train: Split, judged: Split, scenes: Mapping[str, Scene], seed: int
) -> tuple[list[str], dict[str, tuple[float, float]]]:
    """Captions for all pictures of `judged`, and what three writers come to: the share of true
    captions, and the facts in a caption.

    "model": these captions; "shuffled features": the model, but each picture has the features of
    another, so that it can only guess what is common; "most frequent caption": the one of train,
    for every picture. A model that is not far above both floors has not looked.
    """
    xp = array_module(model.parameters["lstm"])
    shown = [scenes[name] for name in judged.names]
    captions = model.write(to_device(judged.features, xp), BEAM)
    writers = {
        "model": captions,
        # With another's features the model writes what it wrote for the other.
        "shuffled features": [captions[row] for row in others(len(captions), seed)],
        "most frequent caption": [most_frequent_caption(train.captions)] * len(shown),
    }
    return captions, {
        name: (float(numpy.mean(truths(texts, shown))), float(numpy.mean(facts(texts, shown))))
        for name, texts in writers.items()
    }
