"""The images of an evaluation, and the files they are read from."""

import json
from dataclasses import replace

import numpy
import pytest

from minicap.data.dataset import DataFiles, shipped_scenes
from minicap.data.evaluation_set import read_evaluation_set, sources, training_set
from minicap.data.features import Features, read_features
from minicap.training.options import RunOptions
from minicap.utils.errors import UserError
from tests.tiny import write_data


@pytest.fixture
def files(tmp_path):
    return write_data(tmp_path / "data")


def as_stored(files):
    """The files as a model stores them."""
    return RunOptions(data=files).to_json()["data"]


def test_a_split_with_its_references_and_raw_features(files):
    images = read_evaluation_set(files, "dev")
    stored = read_features(files.features[0])
    assert images.names == ["6.jpg", "7.jpg", "8.jpg"]
    assert images.references["7.jpg"] == [
        "A blue dog sits .",
        "A blue dog runs fast .",
        "A blue dog runs over the hill to its house .",
    ]
    assert numpy.array_equal(images.features, stored.array[6:9])
    assert images.encoder == {"id": "tiny", "name": "tiny encoder"} and not images.notes


def test_all_is_the_whole_file(files):
    assert len(read_evaluation_set(files, "all").names) == 12


def test_without_features_there_are_references(files):
    images = read_evaluation_set(replace(files, features=None), "test")
    assert images.features is None and len(images.captions) == 3


def test_what_is_left_out_is_noted(files):
    with files.dev_split.open("a") as file:
        file.write("99.jpg\n98.jpg\n")
    stored = read_features(files.features[0])
    Features(stored.names[:8], stored.array[:8]).save(files.features[0])
    with files.captions[0].open("a") as file:
        file.write("6.jpg#9\t...\n")
    images = read_evaluation_set(files, "dev")
    assert images.names == ["6.jpg", "7.jpg"]
    assert images.notes == [
        "1 captions without a word are left out",
        "dev: 2 images have no captions (99.jpg, ...)",
        "dev: 1 images have no features (8.jpg, ...)",
    ]


def test_features_in_folders_and_in_any_order(files):
    """Images keep the caption file's names, and each has its own features."""
    stored = read_features(files.features[0])
    names = [f"photos/{name}" for name in stored.names]
    Features(names[::-1], stored.array[::-1]).save(files.features[0])
    images = read_evaluation_set(files, "dev")
    assert images.names == ["6.jpg", "7.jpg", "8.jpg"]
    assert numpy.array_equal(images.features, stored.array[6:9])


def test_splits_that_are_not_there(files, tmp_path):
    with pytest.raises(UserError, match="no image is in the test split: .*--test-split"):
        read_evaluation_set(replace(files, test_split=None), "test")
    (tmp_path / "other.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(UserError, match="none of the 2 images of the dev split has captions"):
        read_evaluation_set(replace(files, dev_split=tmp_path / "other.txt"), "dev")


def test_nothing_named_is_the_shipped_scenes():
    scenes = DataFiles().complete()
    assert sources(DataFiles(), None) == (scenes, [scenes])
    assert sources(DataFiles(), as_stored(DataFiles())) == (scenes, [scenes])
    assert scenes.captions[0].parent == shipped_scenes()


def test_single_files_of_the_training_run_can_be_replaced(files, tmp_path):
    trained = json.loads(json.dumps(as_stored(files)))
    assert sources(DataFiles(), trained) == (files, [files])
    own = DataFiles(test_split=tmp_path / "other.txt")
    wanted = replace(files, test_split=tmp_path / "other.txt")
    assert sources(own, trained) == (wanted, [wanted])


def test_own_captions_replace_the_files_of_the_training_run(files, tmp_path):
    """For the training images, the files of the training run still come first."""
    own = DataFiles(captions=(tmp_path / "c.txt",), features=(tmp_path / "f.npz",))
    assert sources(own, as_stored(files)) == (own, [files, own])
    assert sources(own, None) == (own, [own])


def test_files_that_need_others(files):
    for trained in (None, as_stored(DataFiles())):
        with pytest.raises(UserError, match="your own data needs --captions"):
            sources(DataFiles(features=files.features), trained)
    trained = as_stored(replace(files, captions=(files.captions[0].with_name("gone.txt"),)))
    with pytest.raises(
        UserError, match="gone.txt: the model's training captions are no longer there"
    ):
        sources(DataFiles(), trained)


def test_the_training_set_or_why_there_is_none(files, tmp_path):
    images = read_evaluation_set(files, "dev")
    train, notes = training_set([files], images)
    assert train.names == [f"{n}.jpg" for n in range(6)] and not notes
    gone = replace(files, captions=(tmp_path / "gone.txt",))
    assert training_set([gone, files], images)[0].names == train.names
    nothing, (note,) = training_set([gone], images)
    assert nothing is None and "no baselines from train" in note and "gone.txt" in note
    wide = replace(files, features=(tmp_path / "wide.npz",))
    Features(read_features(files.features[0]).names, numpy.ones((12, 3), "f4")).save(
        wide.features[0]
    )
    nothing, (note,) = training_set([wide], images)
    assert nothing is None and "3 features, not 8" in note


def test_a_random_split_is_not_taken_for_another_model_s_training_set(files):
    """With no splits in lists or in the caption file, the training images are unknown."""
    own = DataFiles(files.captions, files.features)
    assert training_set([own], read_evaluation_set(own, "dev"))[0]
    nothing, (note,) = training_set([own], read_evaluation_set(own, "all"), random=False)
    assert nothing is None
    assert "the train split is unknown: name its images with --train-split" in note
    assert training_set([files], read_evaluation_set(files, "dev"), random=False)[0]


def test_evaluated_images_in_the_training_set_are_noted(files):
    _, notes = training_set([files], read_evaluation_set(files, "all"))
    assert notes == ["6 of the images are in train too: scores are too good"]
    _, notes = training_set([replace(files, features=None)], read_evaluation_set(files, "dev"))
    assert notes == ["no nearest-neighbour baseline: it needs --features"]
