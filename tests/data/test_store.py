"""The feature store: marked rows are on the disk, and mismatches are refused."""

import errno
import json
import os
import shutil

import numpy
import pytest

from minicap.data import store as module
from minicap.data.features import read_features
from minicap.data.store import DONE, FEATURES, MARKS, REASONS, SKIPPED, STORE, TODO, FeatureStore
from minicap.utils.errors import UserError

NAMES = [f"{number}.jpg" for number in range(10)]
ENCODER = {"id": "x" * 64, "name": "tiny", "preprocessing": "squeeze-nearest-4", "feature_size": 3}
ARRAY = numpy.random.default_rng(0).normal(size=(10, 3)).astype("float32")
BAD = {"4.jpg": "is cut off", "9.jpg": "no such file"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def create(folder, names=NAMES, **changes):
    return FeatureStore.create(folder, names, ENCODER | changes, batch=4)


def results(store):
    """The features of the remaining batches, and the reasons to skip photos."""
    store.tidy()
    return (
        (
            row,
            ARRAY[row : row + 4],
            {name: BAD[name] for name in store.batch_at(row) if name in BAD},
        )
        for row in store.todo()
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder):
    with pytest.raises(UserError) as caught:
        FeatureStore.open(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_fill_and_read(folder):
    store = create(folder)
    assert store.encoded == 0 and (store.marks == TODO).all()
    assert list(store.fill(results(store))) == [4, 4, 2]
    back = FeatureStore.open(folder)
    assert back.encoded == 10 and not back.todo()
    assert (back.names, back.encoder, back.batch) == (NAMES, ENCODER, 4)
    good = [n for n in range(10) if n not in (4, 9)]
    assert (back.marks[good] == DONE).all() and (back.marks[[4, 9]] == SKIPPED).all()
    numpy.testing.assert_array_equal(back.features()[good], ARRAY[good].astype("float16"))
    assert (back.features()[[4, 9]] == 0).all()
    lines = [json.loads(line) for line in (folder / REASONS).read_text().splitlines()]
    assert lines == [
        {"row": 4, "photo": "4.jpg", "reason": "is cut off"},
        {"row": 9, "photo": "9.jpg", "reason": "no such file"},
    ]

    features = read_features(folder)
    assert features.names == [NAMES[n] for n in good] and features.encoder == ENCODER
    numpy.testing.assert_array_equal(features.array, ARRAY[good].astype("float16"))


def test_a_complete_store_is_memory_mapped(folder):
    store = create(folder)
    list(store.fill((row, features, {}) for row, features, _ in results(store)))
    assert isinstance(read_features(folder).array, numpy.memmap)


def test_numpy_alone_can_read_it(folder):
    store = create(folder)
    list(store.fill(results(store)))
    array = numpy.load(folder / FEATURES)
    assert array.shape == (10, 3) and array.dtype == "float16"
    assert numpy.load(folder / MARKS).tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("after", range(4))
def test_resumed_after_any_batch_it_has_the_same_bytes(folder, after):
    store = create(folder)
    list(store.fill(results(store)))
    whole = contents(folder)
    shutil.rmtree(folder)

    store = create(folder)
    for _ in zip(range(after), store.fill(results(store))):
        pass
    store = FeatureStore.open(folder)
    assert store.encoded == min(4 * after, 10)
    list(store.fill(results(store)))
    assert contents(folder) == whole


@pytest.mark.parametrize("marked", range(10))
def test_marks_and_reasons_truncated_by_a_crash(folder, marked):
    """A batch with unmarked rows is encoded again as a whole. An incomplete line of reasons, and
    reasons of unmarked rows, are replaced."""
    store = create(folder)
    list(store.fill(results(store)))
    whole = contents(folder)
    cut = bytearray(whole[MARKS])
    cut[len(cut) - 10 + marked :] = bytes(10 - marked)
    (folder / MARKS).write_bytes(cut)
    (folder / REASONS).write_bytes(whole[REASONS] + b'{"row": 9, "pho')
    store = FeatureStore.open(folder)
    assert store.encoded == marked // 4 * 4
    list(store.fill(results(store)))
    assert contents(folder) == whole


def test_what_float16_cannot_hold_is_skipped(folder):
    store = create(folder)
    array = ARRAY.copy()
    array[1, 0], array[5, 2], array[7, 1] = 1e6, numpy.nan, -numpy.inf
    list(store.fill((start, array[start : start + 4], {}) for start in range(0, 10, 4)))
    assert numpy.flatnonzero(store.marks == SKIPPED).tolist() == [1, 5, 7]
    assert numpy.isfinite(store.features()).all()
    assert "beyond float16" in (folder / REASONS).read_text()


def test_features_are_synced_before_their_rows_are_marked(folder, monkeypatch):
    """The order of syncs in each batch."""
    store, order = create(folder), []
    put, sync = module._put, module._sync

    def spy_sync(file):
        sync(file)
        order.append(os.path.basename(file.name))

    monkeypatch.setattr(module, "_sync", spy_sync)
    monkeypatch.setattr(module, "_put", lambda file, row, rows: put(file, row, rows))
    list(store.fill(results(store)))
    assert order == [FEATURES, REASONS, MARKS] * 3


# ---- errors ---------------------------------------------------------------------------------


def test_another_encoder_and_other_photos(folder):
    store = create(folder)
    store.check(NAMES, ENCODER)
    other = ENCODER | {"id": "y" * 64, "preprocessing": "crop-bilinear-4"}
    with pytest.raises(UserError, match="squeeze-nearest-4, not of .*yyyy.*crop-bilinear-4"):
        store.check(NAMES, other)
    with pytest.raises(UserError, match=r"1 are new and 2 gone: new.jpg"):
        store.check([*NAMES[2:], "new.jpg"], ENCODER)
    with pytest.raises(UserError, match="their order differs"):
        store.check(NAMES[::-1], ENCODER)


def test_an_incomplete_store_is_not_trained_on(folder):
    store = create(folder)
    next(store.fill(results(store)))
    with pytest.raises(UserError, match="only 4 of 10 photos are encoded"):
        read_features(folder)


def test_no_store(tmp_path, folder):
    assert "cannot read the feature store" in refused(folder)
    folder.mkdir()
    assert "cannot read the feature store" in refused(folder)
    (folder / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        create(folder)
    assert contents(folder) == {"precious.txt": b"x"}
    with pytest.raises(UserError, match="holds other files"):
        create(folder / "precious.txt")


def test_a_temporary_file_of_a_killed_process_is_accepted(folder):
    folder.mkdir()
    (folder / ".store.json.abcd.tmp").write_text("{")
    FeatureStore.create(folder, NAMES, ENCODER, 4)


def test_a_killed_creation_starts_again(folder):
    create(folder)
    (folder / STORE).unlink()
    (folder / FEATURES).write_bytes(b"half")
    store = create(folder)
    list(store.fill(results(store)))
    assert store.encoded == 10


@pytest.mark.parametrize(
    "name, damage",
    [
        (FEATURES, lambda data: data[:-1]),
        (FEATURES, lambda data: b""),
        (FEATURES, lambda data: b"PK\3\4" + data),
        (FEATURES, lambda data: data.replace(b"(10, 3)", b"(3, 10)")),
        (FEATURES, lambda data: data.replace(b"<f2", b"<i2")),
        (FEATURES, lambda data: data.replace(b"'<f2'", b"'|O' ")),
        (MARKS, lambda data: data[:-1]),
        (MARKS, lambda data: data.replace(b"(10,)", b"(11,)") + b"\0"),
        (MARKS, lambda data: data[:-1] + b"\7"),
        (STORE, lambda data: data[:-1]),
        (STORE, lambda data: b"[" * 100_000),
        (STORE, lambda data: b"[]"),
        (STORE, lambda data: b"\xff"),
        (STORE, lambda data: data.replace(b'"0.jpg"', b'"1.jpg"')),
        (STORE, lambda data: data.replace(b'"0.jpg"', b"0")),
        (STORE, lambda data: data.replace(b'"batch": 4', b'"batch": 0')),
        (STORE, lambda data: data.replace(b'"batch": 4', b'"batch": true')),
        (STORE, lambda data: data.replace(b'"feature_size": 3', b'"feature_size": "3"')),
        (STORE, lambda data: data.replace(b'"feature_size": 3', b'"feature_size": 4')),
        (STORE, lambda data: data.replace(b"store 1", b"store 9")),
        (STORE, lambda data: data.replace(b'"encoder"', b'"decoder"')),
    ],
)
def test_damage_is_named(folder, name, damage):
    create(folder)
    path = folder / name
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    assert name in refused(folder)


@pytest.mark.parametrize("missing", [FEATURES, MARKS])
def test_a_missing_part(folder, missing):
    create(folder)
    (folder / missing).unlink()
    assert missing in refused(folder)


# ---- a full disk ----------------------------------------------------------------------------


def test_a_full_disk_is_detected_before_the_first_photo(folder, monkeypatch):
    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="cannot write .*No space left on device"):
        create(folder)
    assert not (folder / STORE).exists()
    with pytest.raises(UserError, match="no room for 6,000,000,000,000 bytes"):
        create(folder, feature_size=300_000_000_000)


def test_a_disk_that_fills_up_during_encoding(folder, monkeypatch):
    """Some file systems do not reserve the space they promise."""
    store = create(folder)
    put, puts = module._put, []

    def full(file, row, rows):
        puts.append(row)
        if row == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(file, row, rows)

    monkeypatch.setattr(module, "_put", full)
    with pytest.raises(UserError, match="No space left.*what was encoded is kept"):
        list(store.fill(results(store)))
    monkeypatch.undo()
    store = FeatureStore.open(folder)
    assert store.encoded == 4
    list(store.fill(results(store)))
    assert FeatureStore.open(folder).encoded == 10


def test_a_newer_format_is_refused_with_the_reason(folder):
    create(folder)
    about = json.loads((folder / STORE).read_text())
    about["kind"] = "minicap feature store 2"
    (folder / STORE).write_text(json.dumps(about))
    assert "format 2, this minicap reads format 1" in refused(folder)
