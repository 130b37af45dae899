"""The shipped scenes: regenerated from their seed, split correctly, painted and encoded equally."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy
import pytest

from minicap import scenes as command
from minicap.data.compressed import STEPS
from minicap.data.dataset import shipped_scenes
from minicap.data.features import read_features
from minicap.data.scenes import dataset as generator
from minicap.data.scenes.drawing import paint
from minicap.data.scenes.scene import (
    ATTRIBUTES,
    HELD_OUT_PAIRS,
    SPLIT_SIZES,
    Scene,
    load_scenes,
    sample_splits,
)
from minicap.data.vocabulary import tokenise
from minicap.utils.errors import UserError
from minicap.utils.files import read_lines, read_text

SHIPPED = shipped_scenes()
SCENE = Scene("boat", "red", "small", 2, "tree", "left", "sea", "night", seed=7)


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scene]:
    return load_scenes(SHIPPED / "scenes.jsonl.gz")


@pytest.fixture(scope="module")
def splits(scenes) -> dict[str, list[Scene]]:
    return {split: [scenes[name] for name in names(split)] for split in SPLIT_SIZES}


def names(split: str) -> list[str]:
    return (SHIPPED / f"{split}.txt").read_text(encoding="utf-8").split()


def test_the_default_seed_gives_the_shipped_scenes(scenes):
    sampled = sample_splits(0, SPLIT_SIZES)
    expected = {split: names(split) for split in sampled}
    assert {split: sorted(some) for split, some in sampled.items()} == expected
    assert scenes == {name: scene for some in sampled.values() for name, scene in some.items()}
    first = dict(list(scenes.items())[:300])
    found = [text for some in generator.scene_captions(first, 0).values() for text in some]
    assert found == [line.split("\t")[1] for line in lines("captions.txt.gz")[: len(found)]]


@pytest.mark.slow
def test_the_default_seed_gives_the_shipped_text_files(tmp_path, monkeypatch):
    class NoEncoder:
        feature_size = 1

        def about(self):
            return {"id": "none", "name": "none"}

        def __call__(self, images):
            return numpy.random.default_rng(0).standard_normal((len(images), 1))

    monkeypatch.setattr("minicap.encoder.session.seeded_encoder", NoEncoder)
    monkeypatch.setattr(generator, "paint", lambda scene: None)
    command.main(["--out", str(tmp_path)])
    for file in ("captions.txt.gz", "train.txt", "dev.txt", "test.txt", "scenes.jsonl.gz"):
        assert read_text(tmp_path / file, file) == read_text(SHIPPED / file, file)


def test_splits_are_disjoint_and_cover_everything(scenes):
    members = [name for split in SPLIT_SIZES for name in names(split)]
    assert {split: len(names(split)) for split in SPLIT_SIZES} == SPLIT_SIZES
    assert len(members) == len(set(members))
    assert set(members) == set(scenes) == set(read_features(SHIPPED / "features.npz").names)
    captions = Counter(line.split("#")[0] for line in lines("captions.txt.gz"))
    assert set(captions.values()) == {5} and set(captions) == set(scenes)


def test_no_description_occurs_twice(scenes):
    assert len({replace(scene, seed=0) for scene in scenes.values()}) == len(scenes)


def test_dev_and_test_have_combinations_of_their_own(splits):
    """Counted in the files, independently of the split rule."""
    shown = {split: [combinations_of(scene) for scene in splits[split]] for split in splits}
    everything = {split: set().union(*shown[split]) for split in shown}
    for split in ("dev", "test"):
        others = set().union(*(everything[other] for other in everything if other != split))
        assert all(combination - others for combination in shown[split]), split


def combinations_of(scene: Scene) -> set[tuple]:
    return {(*pair, *(getattr(scene, attribute) for attribute in pair)) for pair in HELD_OUT_PAIRS}


def test_every_value_is_frequent_in_train(splits):
    for attribute, values in ATTRIBUTES.items():
        seen = Counter(getattr(scene, attribute) for scene in splits["train"])
        assert set(seen) == set(values) and min(seen.values()) >= 100, (attribute, seen)


def test_the_vocabulary_is_rich_and_each_word_frequent():
    train = set(names("train"))
    words = Counter(
        word
        for line in lines("captions.txt.gz")
        if line.split("#")[0] in train
        for word in tokenise(line.split("\t")[1])
    )
    everything = {w for line in lines("captions.txt.gz") for w in tokenise(line.split("\t")[1])}
    assert 130 <= len(everything) <= 250
    assert set(words) == everything and min(words.values()) >= 20


def test_captions_are_short_and_of_many_lengths():
    lengths = Counter(len(tokenise(line.split("\t")[1])) for line in lines("captions.txt.gz"))
    assert max(lengths) == 18 and sum(number >= 500 for number in lengths.values()) >= 8


def lines(file: str) -> list[str]:
    return read_lines(SHIPPED / file, "scenes")[:-1]


# ---- images ------------------------------------------------------------------------------------


def test_painting_is_deterministic():
    first, second = (numpy.asarray(paint(SCENE)) for _ in range(2))
    assert first.shape == (299, 299, 3) and first.dtype == numpy.uint8
    assert (first == second).all()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "duck"}, {"colour": "white"}, {"size": "big"}, {"count": 3}, {"sky": "sunny"},
        {"companion": "house"}, {"relation": "right"}, {"companion": "none", "relation": "none"},
    ],
    ids=str,
)  # fmt: skip
def test_every_attribute_is_visible(change):
    here, there = (numpy.asarray(paint(s), int) for s in (SCENE, replace(SCENE, **change)))
    changed = (abs(here - there).max(axis=2) > 60).mean()
    assert changed > 0.004, "less than 360 of 89,401 pixels differ much"


def test_the_grounds_look_different():
    balloon = replace(SCENE, kind="balloon")
    images = [
        numpy.asarray(paint(replace(balloon, ground=ground)), int)
        for ground in ATTRIBUTES["ground"]
    ]
    for one, other in combinations(images, 2):
        assert (abs(one - other).max(axis=2) > 20).mean() > 0.2


def test_images_are_saved_under_their_names(tmp_path, scenes, capsys):
    command.main(["--pictures", str(tmp_path), "--split", "dev", "--count", "2"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names("dev")[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pictures=x", "--count=601"], "--count must be from 1 to 600, the images of test"),
        (["--pictures=x", "--count=0"], "--count must be from 1"),
        (["--probe", "--seed=5"], "--probe works on the shipped data set only"),
        ([], "nothing to do"),
    ],
)
def test_invalid_options_are_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        command.main(words)
    assert not list(tmp_path.iterdir())


def test_shipped_features_are_those_of_the_images(scenes):
    """Compared in the stored coordinates, each of standard deviation 1 over all images.

    They are rounded to 1/4096 of a deviation. The rest of the tolerance allows for another order of
    summation on other CPUs, and for other versions of Pillow, which smooth edges differently by a
    few grey levels. Other images are ten times as far away.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from minicap.encoder.session import SEEDED_ENCODER_ID, seeded_encoder

    shipped = read_features(SHIPPED / "features.npz")
    assert shipped.encoder["id"] == SEEDED_ENCODER_ID
    assert shipped.array.shape == (len(scenes), 2048)
    chosen = [0, 2700, 5400, 8100, 10800, 13199]
    computed = seeded_encoder(threads=2)([paint(scenes[shipped.names[row]]) for row in chosen])
    file = numpy.load(SHIPPED / "features.npz", allow_pickle=False)
    inside = file["basis"].T / file["steps"] / STEPS
    known, new = ((array - file["mean"]) @ inside for array in (shipped.array, computed))
    distance = numpy.stack([numpy.sqrt(numpy.square(row - known).mean(axis=1)) for row in new])
    assert (distance.argmin(axis=1) == chosen).all()
    assert distance[range(len(chosen)), chosen].max() < 0.05
    assert numpy.sort(distance, axis=1)[:, 1].min() > 0.5


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "3", '{"name": "a.png"}',
        json.dumps({"name": "a.png", **vars(SCENE), "colour": "beige"}),
        json.dumps({"name": "a.png", **vars(SCENE), "weather": "fine"}),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line):
    good = lines("scenes.jsonl.gz")[0]
    path = tmp_path / "scenes.jsonl"
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: not a scene"):
        load_scenes(path)


def test_a_call_without_options_is_refused():
    with pytest.raises(UserError, match="--out"):
        command.main([])


def test_an_incomplete_data_set_cannot_be_trained_on(tmp_path, monkeypatch):
    """The old data set stays until the new one is encoded; then its features are deleted first."""

    class Encoder:
        feature_size, interrupted = 2, True

        def __call__(self, images):
            if self.interrupted:
                raise KeyboardInterrupt
            return numpy.random.default_rng(0).standard_normal((len(images), 2))

        def about(self):
            return {"id": "x", "name": "x"}

    def interrupt(*_):
        raise KeyboardInterrupt

    old = dict.fromkeys(("captions.txt.gz", "features.npz", "train.txt", "scenes.jsonl.gz"), b"old")
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(generator, "SPLIT_SIZES", {"train": 5, "dev": 2, "test": 2})
    monkeypatch.setattr("minicap.encoder.session.seeded_encoder", Encoder)
    with pytest.raises(KeyboardInterrupt):
        generator.make_data_set(tmp_path, 1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
    monkeypatch.setattr(Encoder, "interrupted", False)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(generator, "write_text", interrupt)
        generator.make_data_set(tmp_path, 1)
    assert not (tmp_path / "features.npz").exists()
    generator.make_data_set(tmp_path, 1)
    assert len(read_features(tmp_path / "features.npz").names) == 9
