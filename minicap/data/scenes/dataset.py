"""The shipped data set of drawn scenes: generate it, and read it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy
from tqdm import tqdm

from minicap.data.canonical import word_counts
from minicap.data.dataset import shipped_scenes
from minicap.data.features import Features, Scaling, read_features
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.language import MAX_WORDS, generate_captions
from minicap.data.scenes.scene import SPLIT_SIZES, Scene, load_scenes, sample_splits, to_lines
from minicap.data.vocabulary import Vocabulary
from minicap.utils.errors import UserError
from minicap.utils.files import write_text

BATCH = 32  # images that are encoded together
COMPONENTS = 96  # dimensions of the stored features
CAPTIONS = 5  # per image


def make_data_set(folder: Path, seed: int) -> tuple[int, int]:
    """Save captions, splits, descriptions and features of SPLIT_SIZES images.

    Args:
        folder: where to save them.
        seed: of the scenes and captions; the shipped data set has 0.

    Returns:
        The numbers of images and of captions.

    Raises:
        UserError: the folder cannot be created.
    """
    from minicap.encoder.session import seeded_encoder

    try:  # before the encoding, which takes minutes
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot create this folder ({error.strerror or error})"
        ) from error
    splits = sample_splits(seed, SPLIT_SIZES)
    scenes = {name: scene for split in splits.values() for name, scene in split.items()}
    scenes = dict(sorted(scenes.items()))
    captions = scene_captions(scenes, seed)
    lines = [
        f"{name}#{number}\t{caption}\n"
        for name, texts in captions.items()
        for number, caption in enumerate(texts)
    ]
    encoder = seeded_encoder()
    array = numpy.empty((len(scenes), encoder.feature_size), numpy.float32)
    with tqdm(total=len(scenes), unit="image") as bar:
        for start in range(0, len(scenes), BATCH):
            images = [paint(scene) for scene in [*scenes.values()][start : start + BATCH]]
            array[start : start + BATCH] = encoder(images)
            bar.update(len(images))
    # Features are deleted first and saved last: an incomplete data set cannot be trained on.
    (folder / "features.npz").unlink(missing_ok=True)
    write_text(folder / "captions.txt.gz", "".join(lines))
    for split, members in splits.items():
        write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in members))
    write_text(folder / "scenes.jsonl.gz", to_lines(scenes))
    rows = [row for row, name in enumerate(scenes) if name in splits["train"]]
    some = [captions[name] for name in scenes if name in splits["train"]]
    features = Features(list(scenes), array, encoder.about())
    features.save(folder / "features.npz", stored_directions(array[rows], some))
    return len(scenes), len(lines)


def scene_captions(scenes: Mapping[str, Scene], seed: int) -> dict[str, list[str]]:
    """Generate CAPTIONS different captions of each scene; returns image name -> captions."""
    rng = numpy.random.RandomState(seed)
    return {name: generate_captions(scene, rng, CAPTIONS) for name, scene in scenes.items()}


def stored_directions(array: numpy.ndarray, captions: Sequence[Sequence[str]]) -> numpy.ndarray:
    """Find the subspace of the features that the captions describe.

    Args:
        array: (P, F) features of the training images.
        captions: the captions of each of these images.

    Returns:
        (F, K), K <= COMPONENTS; see `Scaling.canonical`.
    """
    texts = [text for some in captions for text in some]
    vocabulary = Vocabulary.of(texts, min_count=1)
    ids, _ = vocabulary.encode(texts, max_length=MAX_WORDS + 2)
    image = numpy.repeat(numpy.arange(len(captions)), [len(some) for some in captions])
    words = word_counts(ids, image, len(captions))
    rotation = Scaling.canonical(array, words, COMPONENTS).rotation
    assert rotation is not None
    return rotation


def shipped_features(names: Iterable[str]) -> numpy.ndarray:
    """Read the features of N images of the shipped data set, (N, F)."""
    features = read_features(shipped_scenes() / "features.npz")
    row = {name: number for number, name in enumerate(features.names)}
    return features.array[[row[name] for name in names]]


def shipped_split(split: str) -> dict[str, Scene]:
    """Read the scenes of a split of the shipped data set: image name -> scene."""
    folder = shipped_scenes()
    scenes = load_scenes(folder / "scenes.jsonl.gz")
    names = (folder / f"{split}.txt").read_text(encoding="utf-8").split()
    return {name: scenes[name] for name in names}
