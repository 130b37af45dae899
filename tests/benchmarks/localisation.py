"""Measure whether a decoder with attention looks at what it names, on drawn scenes.

    minicap scenes --pictures pictures --split train --count 5000
    minicap scenes --pictures pictures --split dev --count 600
    minicap encode pictures --map --components 128 --encoder pretrained --out maps
    minicap train --recipe scenes --image-input attention --components 0 --standardise
        --captions data/scenes/captions.txt.gz --features maps ... (see chapter 15)
    python tests/benchmarks/localisation.py MODEL... --features maps [--split dev]

For each word of a generated caption that names the subject or the companion, and names it rightly:
the sum of the attention weights inside that thing's bounding box, before the word and before the
next one. Chance is the box's share of the image: what equal weights would have there.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy

from minicap.data.features import read_features
from minicap.data.scenes.boxes import boxes, share_inside
from minicap.data.scenes.dataset import shipped_split
from minicap.data.scenes.language import GRAMMAR
from minicap.data.scenes.scene import Scene
from minicap.evaluation.scene_truth import truths
from minicap.generation.config import BEAM
from minicap.generation.generate import generate
from minicap.generation.trace import trace
from minicap.model.trained_model import Model

NAMES = {"cottage": ("companion", "house")}
for kind, single, plural in re.findall(r"\{kind=(\w+)[^}]*\} (\w+)~(\w+)", GRAMMAR):
    NAMES |= dict.fromkeys((single, plural), ("kind", kind))
for thing in re.findall(r"\{companion=(\w+)\}", GRAMMAR):
    NAMES[thing] = ("companion", thing)


def mentions(words: list[str], scene: Scene) -> list[tuple[int, str]]:
    """List the words that name a thing of the scene: their places, and "kind" or "companion"."""
    named = [(place, *NAMES[word]) for place, word in enumerate(words) if word in NAMES]
    return [(place, what) for place, what, value in named if getattr(scene, what) == value]


def look(model: Model, scenes: dict[str, Scene], features: numpy.ndarray):
    """Generate captions, and measure the weights inside the boxes of what they name.

    Returns:
        The captions; and (what, step) -> pairs of the weights inside and the box's share, where
        step 0 is the look before the word and step 1 the next one.
    """
    captions, found = [], defaultdict(list)
    best = [c[0] for c in generate([model], features, BEAM)]
    ids = [[*c.ids, model.vocabulary.end][: len(c.log_probabilities)] for c in best]
    traces = trace([model], features, ids, 1)
    for scene, caption, of_caption in zip(scenes.values(), best, traces, strict=True):
        words = [model.vocabulary.words[number] for number in caption.ids]
        captions.append(" ".join(words))
        where = boxes(scene)
        for place, what in mentions(words, scene):
            for step in (0, 1):
                if of_caption.weights is None or place + step >= len(of_caption.weights):
                    continue
                weights = of_caption.weights[place + step]
                left, top, right, bottom = where[what]
                area = (right - left) * (bottom - top)
                found[what, step].append((share_inside(weights, where[what]), area))
    return captions, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    options = parser.parse_args()
    stored, scenes = read_features(options.features), shipped_split(options.split)
    place = {name: row for row, name in enumerate(stored.names)}
    features = numpy.stack([numpy.asarray(stored.array[place[name]]) for name in scenes])
    for path in options.models:
        captions, found = look(Model.load(path), scenes, features)
        true = numpy.mean(truths(captions, list(scenes.values())))
        print(f"{path}: {true:.1%} of {len(captions)} captions are true")
        for (what, step), pairs in sorted(found.items()):
            inside, chance = numpy.mean(pairs, axis=0)
            when = ("before the word", "before the next")[step]
            print(f"  {what:9} {when}: {inside:.1%} inside the box, chance {chance:.1%}, ", end="")
            print(f"{inside / chance:.1f} times ({len(pairs)} mentions)")


if __name__ == "__main__":
    main()
