"""The drawn scenes: `python -m minicap.scenes` makes the shipped data set, pictures, or a probe."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import tyro
from tqdm import tqdm

from minicap import commands
from minicap.data.canonical import word_counts
from minicap.data.dataset import shipped_scenes
from minicap.data.features import Features, Scaling, read_features
from minicap.data.scenes import ATTRIBUTES, SPLIT_SIZES, Scene, load_scenes, sample_splits, to_lines
from minicap.data.scenes.drawing import draw
from minicap.data.scenes.language import MAX_WORDS, write_captions
from minicap.data.vocabulary import Vocabulary
from minicap.errors import UserError
from minicap.files import write_text
from minicap.report import save_png

TOGETHER = 32  # pictures that are encoded at once
COMPONENTS = 96  # directions of the features that are stored
CAPTIONS = 5  # of each picture


@dataclass(frozen=True)
class Options:
    """Draw scenes. Name at least one of --out, --pictures and --probe."""

    out: Path | None = None
    """make the whole data set in this folder: captions, splits, descriptions, features"""
    pictures: Path | None = None
    """write pictures of the data set into this folder, as PNG"""
    split: Literal["train", "dev", "test"] = "test"
    """the split to draw"""
    count: int = 20
    """number of pictures"""
    probe: bool = False
    """how well a linear probe reads each attribute of the shipped dev scenes from their features"""
    seed: int = 0
    """seed of the data set; 0 is the one that is shipped"""


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    options = tyro.cli(Options, prog="python -m minicap.scenes", args=arguments)
    if not (options.out or options.pictures or options.probe):
        raise UserError("nothing to do: give --out, --pictures or --probe (see --help)")
    if not 1 <= options.count <= SPLIT_SIZES[options.split]:
        most = SPLIT_SIZES[options.split]
        raise UserError(f"--count must be from 1 to {most:,}, the pictures of {options.split}")
    if options.probe and options.seed:
        raise UserError("--probe is about the shipped data set, which has the seed 0")
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
        dev = shipped_split("dev")
        found = probe(shipped_features(dev), [*dev.values()])
        for attribute, right in found.items():
            chance = 1 / len(ATTRIBUTES[attribute])
            values = f"of {len(ATTRIBUTES[attribute])} ({chance:.0%})"
            print(f"{attribute:10} {right.mean():6.1%}  {values}")
        print(f"{'all eight':10} {numpy.all([*found.values()], axis=0).mean():6.1%}")


def make_data_set(folder: Path, seed: int) -> None:
    """Captions, splits, descriptions and features of SPLIT_SIZES pictures, into `folder`."""
    from minicap.encoder.session import seeded_encoder

    try:  # now, and not after the encoding
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror or error})") from error
    splits = sample_splits(seed, SPLIT_SIZES)
    scenes = {name: scene for split in splits.values() for name, scene in split.items()}
    scenes = dict(sorted(scenes.items()))
    captions = captions_of(scenes, seed)
    lines = [
        f"{name}#{number}\t{caption}\n"
        for name, texts in captions.items()
        for number, caption in enumerate(texts)
    ]
    encoder = seeded_encoder()
    array = numpy.empty((len(scenes), encoder.feature_size), numpy.float32)
    with tqdm(total=len(scenes), unit="picture") as bar:
        for start in range(0, len(scenes), TOGETHER):
            pictures = [draw(scene) for scene in [*scenes.values()][start : start + TOGETHER]]
            array[start : start + TOGETHER] = encoder(pictures)
            bar.update(len(pictures))
    # All at the end, and features last: what is begun and not ended cannot be trained on.
    (folder / "features.npz").unlink(missing_ok=True)
    write_text(folder / "captions.txt.gz", "".join(lines))
    for split, members in splits.items():
        write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in members))
    write_text(folder / "scenes.jsonl.gz", to_lines(scenes))
    rows = [row for row, name in enumerate(scenes) if name in splits["train"]]
    some = [captions[name] for name in scenes if name in splits["train"]]
    features = Features(list(scenes), array, encoder.about())
    features.save(folder / "features.npz", stored_directions(array[rows], some))
    print(f"{len(scenes):,} pictures with {len(lines):,} captions in {folder}")


def captions_of(scenes: Mapping[str, Scene], seed: int) -> dict[str, list[str]]:
    """Write CAPTIONS different captions of each scene, by the scene's name."""
    rng = numpy.random.RandomState(seed)
    return {name: write_captions(scene, rng, CAPTIONS) for name, scene in scenes.items()}


def stored_directions(array: numpy.ndarray, captions: Sequence[Sequence[str]]) -> numpy.ndarray:
    """The directions of the features that the captions talk about, (F, COMPONENTS or fewer).

    array: (P, F) the training pictures' features; captions: of the same P pictures.
    """
    texts = [text for some in captions for text in some]
    vocabulary = Vocabulary.of(texts, min_count=1)
    ids, _ = vocabulary.encode(texts, max_len=MAX_WORDS + 2)
    photo = numpy.repeat(numpy.arange(len(captions)), [len(some) for some in captions])
    words = word_counts(ids, photo, len(captions))
    rotation = Scaling.canonical(array, words, COMPONENTS).rotation
    assert rotation is not None
    return rotation


def shipped_features(names: Iterable[str]) -> numpy.ndarray:
    """The features of pictures of the shipped data set, (N, F)."""
    features = read_features(shipped_scenes() / "features.npz")
    row = {name: number for number, name in enumerate(features.names)}
    return features.array[[row[name] for name in names]]


def shipped_split(split: str) -> dict[str, Scene]:
    """The scenes of a split of the shipped data set, by name."""
    folder = shipped_scenes()
    scenes = load_scenes(folder / "scenes.jsonl.gz")
    names = (folder / f"{split}.txt").read_text(encoding="utf-8").split()
    return {name: scenes[name] for name in names}


def probe(
    asked: numpy.ndarray, scenes: Sequence[Scene], ridge: float = 1.0
) -> dict[str, numpy.ndarray]:
    """Whether a linear probe reads each attribute right from features: (N,) booleans for each.

    Ridge regression from the features, all scaled alike, to one column for each value, fitted on
    the shipped train split; the greatest column wins. asked: (N, F), the features of N `scenes`.
    """
    train = shipped_split("train")
    known = shipped_features(train)
    mean = known.mean(axis=0, dtype=numpy.float64)
    deviation = numpy.sqrt(known.var(axis=0, dtype=numpy.float64).mean())
    x = (known - mean) / deviation
    weights = ((asked - mean) / deviation) @ numpy.linalg.solve(
        x.T @ x + ridge * numpy.eye(x.shape[1]), x.T
    )
    found = {}
    for attribute, values in ATTRIBUTES.items():
        known_values, asked_values = (
            numpy.array([values.index(getattr(scene, attribute)) for scene in some])
            for some in (train.values(), scenes)
        )
        one_hot = numpy.eye(len(values))[known_values]
        mean = one_hot.mean(axis=0)
        guess = (weights @ (one_hot - mean) + mean).argmax(axis=1)
        found[attribute] = guess == asked_values
    return found


if __name__ == "__main__":
    commands.run(main)
