"""How good captions are. So far: whether they are true of drawn scenes, whose truth is known."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy

from minicap.backend import array_module, to_device
from minicap.data.dataset import Split
from minicap.data.scenes import Scene
from minicap.data.scenes.language import judge
from minicap.data.vocabulary import tokenise
from minicap.model import Model


def truths(captions: Sequence[str], scenes: Sequence[Scene]) -> list[bool]:
    """Whether each caption is true of its scene: says enough, and nothing that is not so."""
    return [judge(text, scene).true for text, scene in zip(captions, scenes, strict=True)]


def most_frequent_caption(split: Split) -> str:
    """The caption that occurs most often, as words; of several, the first in the alphabet."""
    counts = Counter(" ".join(tokenise(text)) for texts in split.captions for text in texts)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def truth_and_floors(
    model: Model, train: Split, judged: Split, scenes: Mapping[str, Scene], seed: int
) -> tuple[list[str], dict[str, float]]:
    """Captions for all pictures of `judged`, and the share of true ones of three writers.

    "model": these captions; "shuffled features": the model, but each picture has the features of
    another, so that it can only guess what is common; "most frequent caption": the one of train,
    for every picture. A model that is not far above both floors has not looked.
    """
    xp = array_module(model.parameters["lstm"])
    order = numpy.random.default_rng(seed).permutation(len(judged.names))
    other = numpy.empty_like(order)
    other[order] = numpy.roll(order, 1)  # everybody gets a neighbour's, nobody their own
    shown = [scenes[name] for name in judged.names]
    captions = model.write(to_device(judged.features, xp))
    writers = {
        "model": captions,
        "shuffled features": model.write(to_device(judged.features[other], xp)),
        "most frequent caption": [most_frequent_caption(train)] * len(shown),
    }
    return captions, {
        name: float(numpy.mean(truths(texts, shown))) for name, texts in writers.items()
    }
