"""The drawn scenes: `python -m minicap.scenes` makes the shipped data set, pictures, or a probe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import tyro
from tqdm import tqdm

from minicap import commands
from minicap.data.dataset import shipped_scenes
from minicap.data.features import Features, Scaling, read_features
from minicap.data.scenes import ATTRIBUTES, SPLIT_SIZES, Scene, load_scenes, sample_splits, to_lines
from minicap.data.scenes.drawing import draw
from minicap.data.scenes.language import write_captions
from minicap.errors import UserError
from minicap.files import write_text
from minicap.report import save_png

TOGETHER = 32  # pictures that are encoded at once


@dataclass(frozen=True)
class Options:
    """Draw scenes. Name at least one of --out, --pictures and --probe."""

    out: Path | None = None
    """make the whole data set in this folder: captions, splits, descriptions, features"""
    pictures: Path | None = None
    """write pictures of the data set into this folder, as PNG"""
    split: Literal["train", "dev", "test"] = "test"
    """of which split"""
    count: int = 20
    """how many of them"""
    probe: bool = False
    """how well a linear probe reads each attribute of the shipped dev scenes from their features"""
    seed: int = 0
    """of the data set; 0 is the one that is shipped"""


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = tyro.cli(Options, prog="python -m minicap.scenes", args=arguments)
    if not (options.out or options.pictures or options.probe):
        raise UserError("nothing to do: give --out, --pictures or --probe (see --help)")
    if options.count < 1:
        raise UserError("--count must be 1 or more")
    if not 0 <= options.seed < 2**32:
        raise UserError("--seed must be from 0 to 2**32 - 1")
    if options.out:
        make_data_set(options.out, options.seed)
    if options.pictures:
        drawn = sample_splits(options.seed, SPLIT_SIZES)[options.split]
        for name in list(drawn)[: options.count]:
            save_png(draw(drawn[name]), options.pictures / name)
        print(f"pictures in {options.pictures}")
    if options.probe:
        for attribute, right in probe().items():
            chance = 1 / len(ATTRIBUTES[attribute])
            print(f"{attribute:10} {right:6.1%}  of {len(ATTRIBUTES[attribute])} ({chance:.0%})")


def make_data_set(folder: Path, seed: int) -> None:
    """Captions, splits, descriptions and features of SPLIT_SIZES pictures, into `folder`."""
    from minicap.encoder.session import seeded_encoder

    splits = sample_splits(seed, SPLIT_SIZES)
    scenes = {name: scene for split in splits.values() for name, scene in split.items()}
    scenes = dict(sorted(scenes.items()))
    rng = numpy.random.RandomState(seed)
    lines = [
        f"{name}#{number}\t{caption}\n"
        for name, scene in scenes.items()
        for number, caption in enumerate(write_captions(scene, rng))
    ]
    write_text(folder / "captions.txt", "".join(lines))
    for split, members in splits.items():
        write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in members))
    write_text(folder / "scenes.jsonl", to_lines(scenes))
    encoder = seeded_encoder()
    array = numpy.empty((len(scenes), encoder.feature_size), numpy.float16)
    with tqdm(total=len(scenes), unit="picture") as bar:
        for start in range(0, len(scenes), TOGETHER):
            pictures = [draw(scene) for scene in [*scenes.values()][start : start + TOGETHER]]
            array[start : start + TOGETHER] = encoder(pictures)
            bar.update(len(pictures))
    Features(list(scenes), array, encoder.about()).save(folder / "features.npz")
    print(f"{len(scenes):,} pictures with {len(lines):,} captions in {folder}")


def shipped_split(split: str) -> dict[str, Scene]:
    """The scenes of a split of the shipped data set, by name."""
    folder = shipped_scenes()
    scenes = load_scenes(folder / "scenes.jsonl")
    names = (folder / f"{split}.txt").read_text(encoding="utf-8").split()
    return {name: scenes[name] for name in names}


def probe(ridge: float = 1.0) -> dict[str, float]:
    """The share of dev scenes whose attribute a linear probe gets right, for each attribute.

    Ridge regression from the standardised features to one column for each value, fitted on train;
    the greatest column wins. Dev has combinations that train has not, so this is also what a
    captioner can hope for.
    """
    features = read_features(shipped_scenes() / "features.npz")
    row = {name: number for number, name in enumerate(features.names)}
    train, dev = shipped_split("train"), shipped_split("dev")
    known = features.array[[row[name] for name in train]]
    scaling = Scaling.of(known)
    x, asked = scaling(known), scaling(features.array[[row[name] for name in dev]])
    weights = asked @ numpy.linalg.solve(x.T @ x + ridge * numpy.eye(x.shape[1]), x.T)
    found = {}
    for attribute, values in ATTRIBUTES.items():
        values_of = [
            numpy.array([values.index(getattr(scene, attribute)) for scene in scenes.values()])
            for scenes in (train, dev)
        ]
        one_hot = numpy.eye(len(values))[values_of[0]]
        mean = one_hot.mean(axis=0)
        guess = (weights @ (one_hot - mean) + mean).argmax(axis=1)
        found[attribute] = float((guess == values_of[1]).mean())
    return found


if __name__ == "__main__":
    commands.run(main)
