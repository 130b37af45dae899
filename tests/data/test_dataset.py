"""Joining captions, splits and features; what does not match is refused."""

from dataclasses import replace

import numpy
import pytest

from minicap.data.dataset import DataFiles, load_dataset, shipped_scenes
from minicap.data.features import Features, Scaling, read_features
from minicap.utils.errors import UserError
from tests.tiny import WIDTH, dataset, recipe, write_data


@pytest.fixture
def files(tmp_path):
    return write_data(tmp_path)


def load(files, min_count=1, max_length=20, standardise=False):
    return load_dataset(files, min_count, max_length, standardise)


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


def test_each_caption_has_the_features_of_its_image(files):
    data = load(files)
    features = read_features(files.features[0])
    assert {split: len(part.names) for split, part in data.splits.items()} == {
        "train": 6,
        "dev": 3,
        "test": 3,
    }
    for part in data.splits.values():
        texts = [text for some in part.captions for text in some]
        for row, image in enumerate(part.image):
            name = part.names[image]
            assert (part.features[image] == features.array[features.names.index(name)]).all()
            assert texts[row] in part.captions[image]
            words = data.vocabulary.decode(part.ids[row])
            assert words == " ".join(texts[row].lower().rstrip(" .").split())
        starts, counts = part.image_captions
        assert (numpy.repeat(numpy.arange(len(counts)), counts) == part.image).all()
        assert (part.image[starts] == numpy.arange(len(counts))).all()
    assert data.encoder == {"id": "tiny", "name": "tiny encoder"} and not data.notes


def test_vocabulary_and_scaling_come_from_train_only(files):
    """Words and features of dev and test have no influence."""
    before = load(files, standardise=True)
    append(files.captions[0], "".join(f"{n}.jpg#9\tzebra zebra zebra\n" for n in range(6, 12)))
    features = read_features(files.features[0])
    train = before.splits["train"].names
    outside = [name not in train for name in features.names]
    features.array[outside] = 1e4
    features.save(files.features[0])
    after = load(files, standardise=True)
    assert after.vocabulary.words == before.vocabulary.words and "zebra" not in after.vocabulary.ids
    assert (after.scaling.mean == before.scaling.mean).all()
    assert (after.scaling.scale == before.scaling.scale).all()
    assert (after.splits["train"].features == before.splits["train"].features).all()


def test_dev_is_scaled_as_train_is(files):
    data, raw = load(files, standardise=True), load(files)
    scaling = Scaling.standard(raw.splits["train"].features)
    assert (data.splits["dev"].features == scaling(raw.splits["dev"].features)).all()


def test_min_count_counts_train_only(files):
    append(files.captions[0], "0.jpg#8\tzebra\n6.jpg#8\tzebra zebra zebra zebra\n")
    assert "zebra" in load(files, min_count=1).vocabulary.ids
    assert "zebra" not in load(files, min_count=2).vocabulary.ids


def test_photos_without_captions_or_features_are_left_out_and_counted(files):
    append(files.train_split, "bare.jpg\nghost.jpg\n")
    append(files.captions[0], "ghost.jpg#0\tA ghost\nunlisted.jpg#0\tA cat\n")
    features = read_features(files.features[0])
    wide = numpy.ones((1, WIDTH), "float32")
    names = [*features.names, "bare.jpg"]
    Features(names, numpy.concatenate([features.array, wide])).save(files.features[0])
    data = load(files)
    assert len(data.splits["train"].names) == 6 and "ghost" not in data.vocabulary.ids
    notes = "\n".join(data.notes)
    assert "train: 1 photos have no captions (bare.jpg" in notes
    assert "train: 1 photos have no features (ghost.jpg" in notes
    assert "1 photos have features but no captions" in notes


@pytest.mark.parametrize("split", ["dev_split", "test_split"])
def test_a_photo_in_two_splits_is_refused(files, split):
    append(getattr(files, split), "0.jpg\n")
    with pytest.raises(UserError, match=r"0\.jpg is in the train split as well") as caught:
        load(files)
    assert str(getattr(files, split)) in str(caught.value)


def test_a_photo_twice_in_one_list_counts_once(files):
    append(files.train_split, "0.jpg\n")
    assert len(load(files).splits["train"].names) == 6


@pytest.mark.parametrize("split", ["train_split", "dev_split", "test_split"])
def test_nothing_left_of_a_split(files, split):
    getattr(files, split).write_text("other.jpg\nothers.jpg\n")
    with pytest.raises(UserError, match="none of its 2 photos") as caught:
        load(files)
    text = str(caught.value)
    assert all(str(path) in text for path in (getattr(files, split), files.captions[0]))
    assert "\n" not in text


def test_no_word_that_is_frequent_enough(files):
    with pytest.raises(UserError, match="no training word occurs 100 times"):
        load(files, min_count=100)


@pytest.mark.parametrize("name", ["captions", "train_split", "dev_split", "test_split", "features"])
def test_each_missing_file_is_named(files, name):
    value = getattr(files, name)
    (path,) = value if isinstance(value, tuple) else (value,)
    path.unlink()
    with pytest.raises(UserError, match="No such file") as caught:
        load(files)
    assert str(path) in str(caught.value)


def test_incomplete_files_name_the_missing_options(files):
    with pytest.raises(UserError, match="go together: give --dev-split too"):
        replace(files, dev_split=None).complete()
    with pytest.raises(UserError, match="needs --features and --dev-split, too;"):
        replace(files, dev_split=None, features=None).complete()
    with pytest.raises(UserError, match="--captions, --features, --train-split and --dev-split"):
        DataFiles(test_split=files.test_split).complete()
    with pytest.raises(UserError, match="needs --captions, too;"):
        DataFiles(features=files.features).complete()
    assert replace(files, test_split=None).complete().test_split is None


def test_the_test_split_is_optional(files):
    assert set(load(replace(files, test_split=None)).splits) == {"train", "dev"}


# ---- splits ---------------------------------------------------------------------------------


def names(data):
    return {split: part.names for split, part in data.splits.items()}


def without_lists(files, **changes):
    return replace(files, train_split=None, dev_split=None, test_split=None, **changes)


def test_without_lists_splits_are_random_and_noted(tmp_path):
    files = without_lists(write_data(tmp_path, photos=200), dev_fraction=0.2, test_fraction=0.1)
    data = load(files)
    found = names(data)
    assert sorted(sum(found.values(), [])) == sorted(f"{n}.jpg" for n in range(200))
    assert 20 < len(found["dev"]) < 60 and 5 < len(found["test"]) < 40
    counts = ", ".join(f"{len(some)} {split}" for split, some in found.items())
    assert f"random splits with seed 0: {counts}" in data.notes[0]
    assert names(load(files)) == found
    assert names(load(replace(files, split_seed=1))) != found


@pytest.mark.parametrize("fractions", [(0, 0), (1, 0), (0.5, 0.5), (-0.1, 0), (0.1, -0.1)])
def test_fractions_that_leave_a_split_empty(files, fractions):
    with pytest.raises(UserError, match="--dev-fraction and --test-fraction must leave"):
        without_lists(files, dev_fraction=fractions[0], test_fraction=fractions[1]).complete()


def test_too_few_photos_for_a_dev_split(tmp_path):
    files = without_lists(write_data(tmp_path, photos=1), dev_fraction=0.01)
    with pytest.raises(UserError, match="no photo is in the dev split; give lists .* --split-seed"):
        load(files)


def test_splits_from_the_caption_file(files):
    t, r, d, e = "train", "restval", "val", "test"
    rows = [
        f"{n}.jpg,A dog,{split}" for n, split in enumerate([t, t, d, d, r, e, e, t, d, e, t, t])
    ]
    files.captions[0].write_text("\n".join(["image,caption,split", *rows]))
    data = load(without_lists(files))
    assert names(data) == {
        "train": [f"{n}.jpg" for n in (0, 1, 4, 7, 10, 11)],
        "dev": ["2.jpg", "3.jpg", "8.jpg"],
        "test": ["5.jpg", "6.jpg", "9.jpg"],
    }
    assert not data.notes
    assert len(load(files).splits["train"].names) == 6  # lists take precedence
    files.captions[0].write_text("image,caption,split\n0.jpg,A dog,train\n")
    with pytest.raises(UserError, match="no photo is in the dev split; give lists of photos with"):
        load(without_lists(files))


def test_names_match_with_and_without_their_folder(files):
    before = load(files)
    features = read_features(files.features[0])
    inside = [f"photos/{name}" for name in features.names]
    Features(inside, features.array, features.encoder).save(files.features[0])
    after = load(files)
    assert names(after)["dev"] == [f"photos/{name}" for name in names(before)["dev"]]
    assert after.fingerprint == before.fingerprint


def test_lists_and_features_may_both_lack_the_folder_that_captions_have(files):
    before = load(files)
    text = files.captions[0].read_text()
    files.captions[0].write_text("".join(f"val/{line}" for line in text.splitlines(True)))
    after = load(files)
    assert names(after) == names(before) and after.fingerprint == before.fingerprint


def test_a_listed_photo_is_no_other_with_the_same_last_part(files):
    """y/1.jpg has features and no captions; x/1.jpg, which has both, is in no list."""
    rng = numpy.random.default_rng(0)
    Features(["x/1.jpg", "y/1.jpg", "x/2.jpg", "x/3.jpg"], rng.random((4, 8), "f4"), None).save(
        files.features[0]
    )
    files.captions[0].write_text("".join(f"x/{n}.jpg#0\tA dog .\n" for n in (1, 2, 3)))
    files.train_split.write_text("x/3.jpg\ny/1.jpg\n")
    files.dev_split.write_text("x/2.jpg\n")
    data = load(replace(files, test_split=None))
    assert names(data) == {"train": ["x/3.jpg"], "dev": ["x/2.jpg"]}
    assert "train: 1 photos have no captions (y/1.jpg, ...)" in data.notes


def test_features_that_are_all_the_same_cannot_be_whitened(files):
    features = read_features(files.features[0])
    Features(features.names, 0 * features.array + 1, features.encoder).save(files.features[0])
    with pytest.raises(UserError, match="--components: the features of all training photos"):
        load_dataset(files, 1, 20, True, components=4)


def test_without_shipped_scenes_one_line_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr("minicap.data.dataset.SHIPPED", [tmp_path])
    with pytest.raises(UserError, match="minicap scenes --out"):
        shipped_scenes()
    with pytest.raises(UserError, match="minicap scenes --out"):
        DataFiles().complete()


def test_the_fingerprint_depends_on_every_part(files, tmp_path):
    """The same files: the same. A feature, a caption, a split or max_length changed: another."""
    first = load(files).fingerprint
    assert load(files).fingerprint == first
    others = [load(files, max_length=5).fingerprint, load(files, standardise=True).fingerprint]
    features = read_features(files.features[0])
    features.array[0, 0] += 1e-3
    features.save(files.features[0])
    others.append(load(files).fingerprint)
    append(files.captions[0], "6.jpg#7\tdog a\n")
    others.append(load(files).fingerprint)
    assert len({first, *others}) == 5


def test_batch_packs_the_given_rows(tmp_path):
    part = dataset(tmp_path, recipe()).splits["train"]
    batch = part.batch(numpy.array([3, 0]))
    assert len(batch.targets) == (part.lengths[[3, 0]] - 1).sum()
    wanted = part.features[part.image[[3, 0]]]
    assert {row.tobytes() for row in batch.features} == {row.tobytes() for row in wanted}


def test_more_components_than_exist_is_noted(files):
    notes = load_dataset(files, 1, 20, False, components=1000).notes
    assert any(note.startswith("--components 1000: only ") for note in notes)


def test_captions_that_are_all_the_same_have_no_components(tmp_path):
    files = write_data(tmp_path)
    files.captions[0].write_text("".join(f"{number}.jpg#0\tA red dog\n" for number in range(12)))
    with pytest.raises(UserError, match="--components: the captions of all training photos"):
        load_dataset(files, 1, 20, False, components=4)


@pytest.mark.parametrize("name", ["features", "image", "ids", "lengths"])
def test_the_fingerprint_covers_every_array_of_every_split(files, name):
    data = load(files)
    for split, part in data.splits.items():
        array = getattr(part, name).copy()
        array.flat[-1] += 1
        other = replace(data, splits=data.splits | {split: replace(part, **{name: array})})
        assert other.fingerprint != data.fingerprint
