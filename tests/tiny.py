"""A data set, a model and a command line, so small that a whole run takes a tenth of a second."""

from dataclasses import fields
from pathlib import Path

import numpy

from minicap.data.dataset import DataFiles, Dataset, load_dataset
from minicap.data.features import Features, Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.model.attending_decoder import make_decoder
from minicap.model.config import DecoderConfig
from minicap.model.initial import initial_parameters
from minicap.model.trained_model import Model
from minicap.training.config import TrainingConfig
from minicap.training.recipes import Recipe

WIDTH = 8  # features per image
SHAPE = {"hidden_size": 8, "embedding_size": 6, "image_bottleneck": 5, "logit_bottleneck": 7}
# Four positions, whose map is 2 x 2, with two numbers each.
ATTENTION = {"image_input": "attention", "positions": 4, "attention_size": 6}
COLOURS = ("red", "blue", "green")
ENDINGS = ("sits .", "runs fast .", "runs over the hill to its house .")


def write_data(folder: Path, photos: int = 12) -> DataFiles:
    """Write captions (two or three per photo), features, and three splits (the first half is train)
    as files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.jpg" for number in range(photos)]
    lines = [
        f"{name}#{k}\tA {COLOURS[number % 3]} dog {ENDINGS[k]}\n"
        for number, name in enumerate(names)
        for k in range(2 + number % 2)
    ]
    (folder / "captions.txt").write_text("".join(lines))
    half, rest = photos // 2, (photos - photos // 2) // 2
    for split, part in (
        ("train", names[:half]),
        ("dev", names[half : half + rest]),
        ("test", names[half + rest :]),
    ):
        (folder / f"{split}.txt").write_text("\n".join(part) + "\n")
    rng = numpy.random.default_rng(0)
    array = rng.normal(size=(photos, WIDTH)).astype(numpy.float32)
    array[numpy.arange(photos), numpy.arange(photos) % 3] += 3
    Features(names, array, {"id": "tiny", "name": "tiny encoder"}).save(folder / "features.npz")
    return DataFiles(
        (folder / "captions.txt",),
        (folder / "features.npz",),
        folder / "train.txt",
        folder / "dev.txt",
        folder / "test.txt",
    )


def recipe(**changes) -> Recipe:
    """Make a recipe for the tiny data set; `changes` are fields of its two configurations."""
    values = {"epochs": 2, "batch_size": 4, "min_count": 2} | SHAPE | changes
    decoder = {field.name for field in fields(DecoderConfig)}
    return Recipe(
        DecoderConfig(**{name: value for name, value in values.items() if name in decoder}),
        TrainingConfig(**{name: value for name, value in values.items() if name not in decoder}),
    )


def dataset(folder: Path, wanted: Recipe | None = None, photos: int = 12) -> Dataset:
    """Write and load the tiny data set with a recipe's settings."""
    config = (wanted or recipe()).training
    files = write_data(folder, photos)
    return load_dataset(files, config.min_count, config.max_length, config.standardise)


def model(
    encoder: dict | None = None, dtype: str = "float32", max_length: int = 7, **changes
) -> Model:
    """Make an untrained model of eight words, whose parameters are large; `changes` are fields of
    DecoderConfig."""
    vocabulary, config = Vocabulary(["a", "blue", "dog", "red"]), DecoderConfig(**SHAPE | changes)
    shapes = config.shapes(WIDTH, len(vocabulary))
    parameters = initial_parameters(config, shapes, numpy.random.default_rng(5))
    parameters.flat *= 4
    arrays = {name: array.astype(dtype) for name, array in parameters.items()}
    decoder = make_decoder(config, arrays)
    return Model(decoder, vocabulary, Scaling.none(WIDTH), max_length, encoder)


def arguments(files: DataFiles, *more: str) -> list[str]:
    """Make a command line that trains on `files`."""
    options = {
        "captions": files.captions[0],
        "train-split": files.train_split,
        "dev-split": files.dev_split,
        "test-split": files.test_split,
        "features": files.features[0],
        "epochs": 2,
        "batch-size": 4,
        "min-count": 2,
        "workers": 1,
        **{name.replace("_", "-"): value for name, value in SHAPE.items()},
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None] + [*more]
