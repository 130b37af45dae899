"""A data set, a model and a command line so small that a whole run takes a tenth of a second."""

from pathlib import Path

import numpy

from minicap.data.dataset import DataFiles, Dataset, load_dataset
from minicap.data.features import Features, Scaling
from minicap.data.vocabulary import Vocabulary
from minicap.decoder import Sizes, initialise
from minicap.model import Model
from minicap.recipes import Recipe

WIDTH = 8  # features of a photo
SHAPE = {"hidden": 8, "embedding": 6, "image_bottleneck": 5, "logit_bottleneck": 7}
COLOURS = ("red", "blue", "green")
ENDINGS = ("sits .", "runs fast .", "runs over the hill to its house .")


def write_data(folder: Path, photos: int = 12) -> DataFiles:
    """Captions (two or three of each photo), three splits (the first half is train) and
    features, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.jpg" for number in range(photos)]
    lines = [
        f"{name}#{k}\tA {COLOURS[number % 3]} dog {ENDINGS[k]}\n"
        for number, name in enumerate(names)
        for k in range(2 + number % 2)
    ]
    (folder / "captions.txt").write_text("".join(lines))
    half, rest = photos // 2, (photos - photos // 2) // 2
    for split, some in (
        ("train", names[:half]),
        ("dev", names[half : half + rest]),
        ("test", names[half + rest :]),
    ):
        (folder / f"{split}.txt").write_text("\n".join(some) + "\n")
    rng = numpy.random.default_rng(0)
    array = rng.normal(size=(photos, WIDTH)).astype(numpy.float32)
    array[numpy.arange(photos), numpy.arange(photos) % 3] += 3
    Features(names, array, {"id": "tiny", "name": "tiny encoder"}).save(folder / "features.npz")
    return DataFiles(
        folder / "captions.txt",
        folder / "features.npz",
        folder / "train.txt",
        folder / "dev.txt",
        folder / "test.txt",
    )


def recipe(**changes) -> Recipe:
    """A recipe for the tiny data set."""
    return Recipe(**({"epochs": 2, "batch_size": 4, "min_count": 2} | SHAPE | changes))


def dataset(folder: Path, of: Recipe | None = None, photos: int = 12) -> Dataset:
    """The tiny data set, as a recipe wants it."""
    of = of or recipe()
    return load_dataset(write_data(folder, photos), of.min_count, of.max_len, of.standardise)


def sizes(data: Dataset) -> Sizes:
    """The widths of a decoder for `data`."""
    return Sizes(len(data.vocabulary), WIDTH, **SHAPE)


def model(encoder: dict | None = None, dtype: str = "float32", max_len: int = 7) -> Model:
    """An untrained model of eight words with parameters large enough to have opinions."""
    vocabulary = Vocabulary(["a", "blue", "dog", "red"])
    shape = Sizes(len(vocabulary), WIDTH, **SHAPE)
    parameters = initialise(shape, numpy.random.default_rng(5))
    parameters.flat *= 4
    parameters = {name: array.astype(dtype) for name, array in parameters.items()}
    return Model(shape, parameters, vocabulary, Scaling.none(WIDTH), max_len, encoder)


def arguments(files: DataFiles, *more: str) -> list[str]:
    """A command line that trains on `files`."""
    options = {
        "captions": files.captions,
        "train-split": files.train_split,
        "dev-split": files.dev_split,
        "test-split": files.test_split,
        "features": files.features,
        "epochs": 2,
        "batch-size": 4,
        "min-count": 2,
        "threads": 1,
        **{name.replace("_", "-"): value for name, value in SHAPE.items()},
    }
    return [f"--{name}={value}" for name, value in options.items() if value is not None] + [*more]
