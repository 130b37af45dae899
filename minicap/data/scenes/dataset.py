"""The shipped data set of drawn scenes: make it, and read parts of it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy
from tqdm import tqdm

from minicap.data.canonical import word_counts
from minicap.data.dataset import shipped_scenes
from minicap.data.features import Features, Scaling, read_features
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.language import MAX_WORDS, write_captions
from minicap.data.scenes.scene import SPLIT_SIZES, Scene, load_scenes, sample_splits, to_lines
from minicap.data.vocabulary import Vocabulary
from minicap.utils.errors import UserError
from minicap.utils.files import write_text

BATCH = 32  # images that are encoded together
COMPONENTS = 96  # directions of the features that are stored
CAPTIONS = 5  # of each image


def make_data_set(folder: Path, seed: int) -> tuple[int, int]:
    """Write captions, splits, descriptions and features of SPLIT_SIZES images to `folder`.

    Returns:
        The numbers of images and of captions.
    """
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
        for start in range(0, len(scenes), BATCH):
            pictures = [paint(scene) for scene in [*scenes.values()][start : start + BATCH]]
            array[start : start + BATCH] = encoder(pictures)
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
    return len(scenes), len(lines)


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
    ids, _ = vocabulary.encode(texts, max_length=MAX_WORDS + 2)
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
