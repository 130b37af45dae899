"""What an evaluation reads, and from where."""

import json
from dataclasses import asdict, replace

import numpy
import pytest

from minicap.data.dataset import DataFiles, shipped_scenes
from minicap.data.evaluation_set import read_evaluation_set, sources, training_set
from minicap.data.features import Features, read_features
from minicap.utils.errors import UserError
from tests.tiny import write_data


@pytest.fixture
def files(tmp_path):
    return write_data(tmp_path / "data")


def plain(files):
    """As a model remembers them."""
    return {n: str(v) if hasattr(v, "parts") else v for n, v in asdict(files).items()}


def test_a_split_with_its_references_and_raw_features(files):
    pictures = read_evaluation_set(files, "dev")
    stored = read_features(files.features)
    assert pictures.names == ["6.jpg", "7.jpg", "8.jpg"]
    assert pictures.references["7.jpg"] == [
        "A blue dog sits .",
        "A blue dog runs fast .",
        "A blue dog runs over the hill to its house .",
    ]
    assert numpy.array_equal(pictures.features, stored.array[6:9])
    assert pictures.encoder == {"id": "tiny", "name": "tiny encoder"} and not pictures.notes


def test_all_is_the_whole_file(files):
    assert len(read_evaluation_set(files, "all").names) == 12


def test_without_features_there_are_references(files):
    pictures = read_evaluation_set(replace(files, features=None), "test")
    assert pictures.features is None and len(pictures.captions) == 3


def test_what_is_left_out_is_noted(files):
    with files.dev_split.open("a") as file:
        file.write("99.jpg\n98.jpg\n")
    stored = read_features(files.features)
    Features(stored.names[:8], stored.array[:8]).save(files.features)
    with files.captions.open("a") as file:
        file.write("6.jpg#9\t...\n")
    pictures = read_evaluation_set(files, "dev")
    assert pictures.names == ["6.jpg", "7.jpg"]
    assert pictures.notes == [
        "1 captions without a word are left out",
        "dev: 2 pictures have no captions (99.jpg, ...)",
        "dev: 1 pictures have no features (8.jpg, ...)",
    ]


def test_features_in_folders_and_in_any_order(files):
    """EvaluationSet keep the caption file's names, and each its own features."""
    stored = read_features(files.features)
    names = [f"photos/{name}" for name in stored.names]
    Features(names[::-1], stored.array[::-1]).save(files.features)
    pictures = read_evaluation_set(files, "dev")
    assert pictures.names == ["6.jpg", "7.jpg", "8.jpg"]
    assert numpy.array_equal(pictures.features, stored.array[6:9])


def test_splits_that_are_not_there(files, tmp_path):
    with pytest.raises(UserError, match="no picture is in the test split: .*--test-split"):
        read_evaluation_set(replace(files, test_split=None), "test")
    (tmp_path / "other.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(UserError, match="none of the 2 pictures of the dev split has captions"):
        read_evaluation_set(replace(files, dev_split=tmp_path / "other.txt"), "dev")


def test_nothing_named_is_the_shipped_scenes():
    scenes = DataFiles().complete()
    assert sources(DataFiles(), None) == (scenes, [scenes])
    assert sources(DataFiles(), plain(DataFiles())) == (scenes, [scenes])
    assert scenes.captions.parent == shipped_scenes()


def test_what_the_model_remembers_can_be_overridden_file_by_file(files, tmp_path):
    remembered = json.loads(json.dumps(plain(files)))
    assert sources(DataFiles(), remembered) == (files, [files])
    own = DataFiles(test_split=tmp_path / "other.txt")
    wanted = replace(files, test_split=tmp_path / "other.txt")
    assert sources(own, remembered) == (wanted, [wanted])


def test_own_captions_replace_all_that_is_remembered(files, tmp_path):
    """But to train on, what the model was trained on comes first."""
    own = DataFiles(captions=tmp_path / "c.txt", features=tmp_path / "f.npz")
    assert sources(own, plain(files)) == (own, [files, own])
    assert sources(own, None) == (own, [own])


def test_files_that_need_others(files):
    for remembered in (None, plain(DataFiles())):
        with pytest.raises(UserError, match="your own data needs --captions"):
            sources(DataFiles(features=files.features), remembered)
    remembered = plain(replace(files, captions=files.captions.with_name("gone.txt")))
    with pytest.raises(
        UserError, match="gone.txt, the captions that the model was trained on, are"
    ):
        sources(DataFiles(), remembered)


def test_training_pictures_and_why_there_are_none(files, tmp_path):
    pictures = read_evaluation_set(files, "dev")
    train, notes = training_set([files], pictures)
    assert train.names == [f"{n}.jpg" for n in range(6)] and not notes
    gone = replace(files, captions=tmp_path / "gone.txt")
    assert training_set([gone, files], pictures)[0].names == train.names
    nothing, (note,) = training_set([gone], pictures)
    assert nothing is None and "no floors from train" in note and "gone.txt" in note
    wide = replace(files, features=tmp_path / "wide.npz")
    Features(read_features(files.features).names, numpy.ones((12, 3), "f4")).save(wide.features)
    nothing, (note,) = training_set([wide], pictures)
    assert nothing is None and "3 features, not 8" in note


def test_nobody_draws_what_was_trained_on_by_others(files):
    """Where neither lists nor the caption file tell, captions from elsewhere have no train."""
    own = DataFiles(files.captions, files.features)
    assert training_set([own], read_evaluation_set(own, "dev"))[0]
    nothing, (note,) = training_set([own], read_evaluation_set(own, "all"), lot=False)
    assert nothing is None and "nothing says which pictures are train: use --train-split" in note
    assert training_set([files], read_evaluation_set(files, "dev"), lot=False)[0]


def test_pictures_that_were_trained_on_are_spoken_of(files):
    _, notes = training_set([files], read_evaluation_set(files, "all"))
    assert notes == ["6 of the pictures are in train too: scores are too good"]
    _, notes = training_set([replace(files, features=None)], read_evaluation_set(files, "dev"))
    assert notes == ["no nearest-neighbour floor: no file of --features"]
