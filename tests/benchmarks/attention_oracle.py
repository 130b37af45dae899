"""Compare attention with an oracle that is told where to look, and with equal weights, on scenes.

    python tests/benchmarks/attention_oracle.py --features maps --train-split train.txt [--seeds 3]

The features and train.txt are those of chapter 15. The oracle's weights are given, in training and
on dev: before a word that describes the subject (its kind, colour, size and number) or names the
companion, all weight lies in that thing's bounding box; before other words it is spread evenly.
Printed is the mean cross-entropy of these words of dev's captions, in nats, and the share that each
model predicts correctly, given the words before.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy
from localisation import NAMES

from minicap.data.batches import pack
from minicap.data.dataset import DataFiles, load_dataset
from minicap.data.scenes.boxes import boxes
from minicap.data.scenes.dataset import shipped_split
from minicap.nn import attention_lstm
from minicap.training.recipes import RECIPES
from minicap.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
SUBJECT = {
    "size": {"small": "small little tiny", "big": "big large huge"},
    "count": {1: "one", 2: "two pair", 3: "three group"},
}
GROUPS = "other words", "the subject's words", "the companion's names"


def referent(word: str, scene) -> int:
    """What a word of a scene's caption describes: 0 neither, 1 the subject, 2 the companion."""
    what, value = NAMES.get(word, (None, None))
    if what and getattr(scene, what) == value:
        return 1 if what == "kind" else 2
    described = any(
        word in words.get(getattr(scene, a), "").split() for a, words in SUBJECT.items()
    )
    return int(described or word == scene.colour)


def inside(box, side: int) -> numpy.ndarray:
    """Weights (L,) that lie evenly in a box of a square map."""
    left, top, right, bottom = box
    edges = numpy.arange(side + 1) / side

    def overlap(low, high):
        return numpy.clip(numpy.minimum(edges[1:], high) - numpy.maximum(edges[:-1], low), 0, None)

    weights = numpy.outer(overlap(top, bottom), overlap(left, right)).ravel()
    return (weights / weights.sum()).astype(numpy.float32)


class Oracle:
    """Gives each look its weights, in place of `attend`."""

    def __init__(self, dataset, side: int):
        """Find out what each word of each caption describes, and where that is."""
        self.real, self.start, self.weights = attention_lstm.attend, 0, None
        self.groups, self.where = {}, {}
        words = dataset.vocabulary.words
        for name, split in dataset.splits.items():
            scenes = shipped_split(name)
            places, kinds = [], []
            for image in split.names:
                box = boxes(scenes[image])
                even = numpy.full(side * side, 1 / side**2, numpy.float32)
                things = [even, inside(box["kind"], side)]
                things.append(inside(box["companion"], side) if "companion" in box else even)
                places.append(things)
            for image, ids in zip(split.image, split.ids, strict=True):
                scene = scenes[split.names[image]]
                kinds.append([referent(words[n], scene) for n in ids[1:]] + [0])
            self.where[name], self.groups[name] = numpy.array(places), numpy.array(kinds)

    def packed(self, name: str, split, rows: numpy.ndarray) -> numpy.ndarray:
        """The group of each target of a batch, and prepare the weights of its looks."""
        order = numpy.argsort(-split.lengths[rows], kind="stable")
        rows = rows[order]
        steps = split.lengths[rows] - 1
        active = numpy.arange(steps.max())[:, None] < steps
        groups = self.groups[name][rows][:, : steps.max()].T[active]
        images = numpy.broadcast_to(split.image[rows], active.shape)[active]
        self.weights, self.start = self.where[name][images, groups], 0
        return groups

    def attend(self, query, exp_keys, values, v, buffer=None):
        """Look where the oracle says."""
        assert self.weights is not None
        a = self.weights[self.start :][: len(query)]
        self.start += len(query)

        def backward(dcontext, dweights, need_dvalues=True):
            dvalues = a[:, :, None] * dcontext[:, None] if need_dvalues else None
            return numpy.zeros_like(query), numpy.zeros_like(exp_keys), dvalues, numpy.zeros_like(v)

        return (a[:, None] @ values)[:, 0], a, backward


def train_and_measure(way: str, recipe, dataset, oracle: Oracle, seed: int) -> numpy.ndarray:
    """Train a model; return the cross-entropy and the accuracy of each group of dev's words."""
    size = 0 if way == "equal weights" else recipe.decoder.attention_size
    recipe = replace(recipe, decoder=replace(recipe.decoder, attention_size=size))
    attention_lstm.attend = oracle.attend if way == "oracle" else oracle.real
    trainer = Trainer(recipe, dataset, seed)
    train, dev = dataset.splits["train"], dataset.splits["dev"]
    for epoch in range(recipe.training.epochs):
        order = numpy.random.default_rng([seed, epoch]).permutation(len(train.lengths))
        for start in range(0, len(order), recipe.training.batch_size):
            rows = order[start : start + recipe.training.batch_size]
            if trainer.step == trainer.schedule.steps(epoch):
                break
            oracle.packed("train", train, rows)
            trainer.train_step(pack(train.features[train.image[rows]], train.ids[rows],
                                    train.lengths[rows]))  # fmt: skip
        trainer.end_epoch()
    sums = numpy.zeros((len(GROUPS), 3))
    for rows in numpy.array_split(numpy.arange(len(dev.lengths)), 20):
        groups = oracle.packed("dev", dev, rows)
        batch = dev.batch(rows)
        correct = numpy.empty(len(batch.targets), bool)
        for group in range(len(GROUPS)):
            oracle.start = 0
            chosen = (groups == group).astype(numpy.float32)
            loss, _ = trainer.decoder.loss(replace(batch, weights=chosen), 1, correct=correct)
            sums[group] += float(loss), correct[groups == group].sum(), chosen.sum()
    return sums[:, :2] / sums[:, 2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--train-split", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    scenes = ROOT / "data/scenes"
    files = DataFiles(
        (scenes / "captions.txt.gz",), (options.features,), options.train_split, scenes / "dev.txt"
    )
    recipe = RECIPES["scenes"]
    training = replace(recipe.training, components=0, standardise=True, epochs=options.epochs)
    dataset = load_dataset(files, training.min_count, training.max_length, True)
    positions = (dataset.encoder or {})["positions"]
    decoder = replace(recipe.decoder, image_input="attention", positions=positions)
    recipe, oracle = (
        replace(recipe, decoder=decoder, training=training),
        Oracle(dataset, round(positions**0.5)),
    )
    for way in "equal weights", "attention", "oracle":
        found = [
            train_and_measure(way, recipe, dataset, oracle, seed) for seed in range(options.seeds)
        ]
        for group, name in enumerate(GROUPS):
            loss, accuracy = numpy.array(found)[:, group].T
            spread = f"({loss.min():.3f} to {loss.max():.3f}) nats"
            right = f"{accuracy.mean():.1%} ({accuracy.min():.1%} to {accuracy.max():.1%}) correct"
            print(f"{way:14} {name:22} {loss.mean():.3f} {spread}, {right}", flush=True)


if __name__ == "__main__":
    main()
