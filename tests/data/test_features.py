"""Stored features: round trips, and files that are refused."""

import io
import pickle
import resource
import tracemalloc
import zipfile
from pathlib import Path

import numpy
import pytest

from minicap.data import features as module
from minicap.data.features import Features, Scaling, read_features
from minicap.utils.errors import UserError

NAMES = [f"{number}.jpg" for number in range(6)]
ARRAY = numpy.random.default_rng(0).normal(size=(6, 4)).astype("float32")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "features.npz"


def refusal(path):
    """The error message, which must be one line and name the file."""
    with pytest.raises(UserError) as caught:
        read_features(path)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(path, dtype):
    Features(NAMES, ARRAY.astype(dtype), {"id": "x", "name": "é"}).save(path)
    back = read_features(path)
    assert back.names == NAMES and back.encoder == {"id": "x", "name": "é"}
    assert back.array.dtype == dtype and (back.array == ARRAY.astype(dtype)).all()


def test_a_plain_npz_is_read_without_an_encoder(path):
    numpy.savez_compressed(path, names=NAMES, features=ARRAY.astype("float64"), more=1)
    back = read_features(path)
    assert back.encoder is None and back.array.dtype == "float32"
    assert (back.array == ARRAY).all()


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    Features(NAMES, ARRAY).save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numpy, "savez", full)
    with pytest.raises(UserError, match="No space left"):
        Features(NAMES[:1], ARRAY[:1]).save(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_no_file(path):
    assert "No such file" in refusal(path)


def test_a_folder(path):
    path.mkdir()
    assert "directory" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89PNG", pickle.dumps([1])])
def test_another_kind_of_file(path, content):
    path.write_bytes(content)
    assert "not an .npz file" in refusal(path)


def test_a_single_array(path):
    with open(path, "wb") as file:
        numpy.save(file, ARRAY)
    assert "not an .npz file" in refusal(path)


def test_an_npz_of_something_else(path):
    numpy.savez(path, weights=ARRAY)
    assert "`names` and `features`" in refusal(path)


class Bomb:
    """An object whose pickle runs code when it is loaded."""

    fired = False

    def __reduce__(self):
        return (setattr, (Bomb, "fired", True))


@pytest.mark.parametrize("place", ["names", "features", "encoder"])
def test_nothing_is_unpickled(path, place):
    arrays = {"names": NAMES, "features": ARRAY, "encoder": "null"}
    numpy.savez(path, **(arrays | {place: numpy.array([Bomb()] * 6, dtype=object)}))
    refusal(path)
    assert not Bomb.fired


@pytest.mark.parametrize(
    ("names", "array"),
    [
        (NAMES[:5], ARRAY),
        (NAMES, ARRAY[0]),
        (NAMES, ARRAY[:, :, None]),
        ([NAMES], ARRAY),
        (NAMES, ARRAY.astype(int)),
        (NAMES, ARRAY.astype(complex)),
        (NAMES, ARRAY[:, :0]),
        (NAMES[:0], ARRAY[:0]),
        (range(6), ARRAY),
        (numpy.array(NAMES, "S"), ARRAY),
    ],
)
def test_shapes_and_types_that_do_not_match(path, names, array):
    numpy.savez(path, names=numpy.array(names), features=array)
    assert "do not match" in refusal(path)


@pytest.mark.parametrize("encoder", [3, "3", "[1]", "{", ["{}", "{}"]])
def test_an_encoder_that_is_no_json_object(path, encoder):
    numpy.savez(path, names=NAMES, features=ARRAY, encoder=numpy.array(encoder))
    refusal(path)


@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_not_finite_names_the_photo(path, bad, dtype):
    array = ARRAY.astype(dtype)
    array[2, 3] = array[4, 0] = bad
    numpy.savez(path, names=NAMES, features=array)
    text = refusal(path)
    assert "row 2 (2.jpg)" in text and "2 of 6 photos" in text


def test_overflow_of_float32_is_refused(path):
    numpy.savez(path, names=NAMES, features=ARRAY.astype("float64") * 1e300)
    assert "infinite" in refusal(path)


def test_a_name_that_occurs_twice(path):
    numpy.savez(path, names=[*NAMES[:5], "2.jpg"], features=ARRAY)
    assert "2.jpg occurs more than once" in refusal(path)


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_truncated_anywhere(path, save):
    save(path, names=NAMES, features=ARRAY)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_a_flipped_bit_is_refused_or_changes_nothing(path, save):
    """zip has a checksum for each member; a flip in a date, for example, may pass."""
    save(path, names=NAMES, features=ARRAY)
    whole = path.read_bytes()
    refused = 0
    places = range(0, len(whole), 5)
    for place in places:
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        )
        try:
            back = read_features(path)
            assert back.names == NAMES and (back.array == ARRAY).all()
        except UserError:
            refused += 1
    assert refused > len(places) / 2


@pytest.mark.parametrize("shape", [(6, 10**9), (10**15, 4), (2**62, 2**62), (-1, 4)])
def test_a_header_that_claims_a_huge_array_costs_no_memory(path, shape):
    member = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    numpy.lib.format.write_array_header_1_0(member, header)
    numpy.savez(path, names=NAMES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("features.npy", member.getvalue() + ARRAY.tobytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_zip_bomb_is_not_unpacked(path, monkeypatch):
    """3 MB from 3 kB is refused as soon as 1 MB counts as large."""
    numpy.savez_compressed(path, names=NAMES, features=numpy.zeros((6, 1 << 18), "float16"))
    assert read_features(path).array.nbytes > 100 * path.stat().st_size
    monkeypatch.setattr(module, "LARGE", 1 << 20)
    tracemalloc.start()
    assert "would unpack to" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_scaling_gives_mean_0_and_deviation_1():
    wide = (ARRAY * [1, 10, 100, 0] + [5, 0, -3, 7]).astype("float32")
    scaled = Scaling.standard(wide)(wide)
    assert scaled.dtype == "float32"
    assert numpy.allclose(scaled.mean(axis=0), 0, atol=1e-6)
    assert numpy.allclose(scaled.std(axis=0), [1, 1, 1, 0], atol=1e-5)  # the last never varies


def test_canonical_scaling_keeps_the_directions_of_the_words():
    """Two directions of nine noisy features encode the counts of two words."""
    rng = numpy.random.default_rng(0)
    words = rng.poisson(2, (400, 2)).astype("float32")
    loud = 3 * rng.standard_normal((400, 7))
    wide = numpy.hstack([words, loud]) @ rng.standard_normal((9, 9)) + 5
    scaling = Scaling.canonical(wide.astype("float32"), words, components=2)
    kept = scaling(wide)
    assert kept.shape == (400, 2) and kept.dtype == numpy.float32
    centred = words - words.mean(axis=0)
    left = centred - kept @ numpy.linalg.lstsq(kept, centred)[0]
    assert (left**2).sum() < 0.02 * (centred**2).sum()


def test_compressed_features_are_read_as_uncompressed(path):
    rng = numpy.random.default_rng(0)
    inside = rng.standard_normal((3, 20))
    array = (rng.standard_normal((50, 3)) @ inside + 4).astype("float32")
    names = [f"{number}.png" for number in range(50)]
    Features(names, array, {"id": "x", "name": "x"}).save(path, inside.T)
    found = read_features(path)
    assert found.names == names and found.encoder == {"id": "x", "name": "x"}
    assert found.array.shape == (50, 20) and found.array.dtype == numpy.float32
    assert numpy.abs(found.array - array).max() < 2e-3 * array.std(axis=0).max()


def test_canonical_scaling_gives_the_same_for_compressed_features(path):
    """Nine tenths of the variance are lost; the canonical map does not use them."""
    rng = numpy.random.default_rng(0)
    words = rng.poisson(2, (400, 3)).astype("float32")
    mixed = numpy.hstack([words, 3 * rng.standard_normal((400, 37))])
    array = (mixed @ rng.standard_normal((40, 40)) + 5).astype("float32")
    directions = Scaling.canonical(array, words, 4).rotation
    Features([str(n) for n in range(400)], array).save(path, directions)
    stored = read_features(path).array
    assert numpy.square(stored - array).mean() > 0.5 * array.var(axis=0).mean()
    scaling = Scaling.canonical(stored, words, 3)
    assert numpy.abs(scaling(stored) - scaling(array)).max() < 2e-3  # deviations are 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": numpy.ones(2)}, "do not match"),
        ({"basis": numpy.ones((3, 5))}, "do not match"),
        ({"codes": numpy.ones(3, "int16")}, "do not match"),
        ({"mean": numpy.ones((1, 20))}, "do not match"),
        ({"steps": numpy.full(3, numpy.nan)}, "NaN"),
        ({"codes": numpy.full((2, 3), "x")}, "wrong data types"),
        ({"mean": numpy.ones(20, complex)}, "wrong data types"),
    ],
)
def test_compressed_features_that_do_not_match(path, changed, message):
    good = {
        "codes": numpy.ones((2, 3), "int16"), "steps": numpy.ones(3),
        "basis": numpy.ones((3, 20)), "mean": numpy.ones(20),
    }  # fmt: skip
    numpy.savez(path, names=numpy.array(["a", "b"]), **good)
    assert read_features(path).array.shape == (2, 20)
    numpy.savez(path, names=numpy.array(["a", "b"]), **(good | changed))
    assert message in refusal(path)


def test_compressed_features_with_a_missing_array(path):
    numpy.savez(path, names=numpy.array(["a"]), codes=numpy.ones((1, 2), "int16"))
    assert "compressed features without `steps`" in refusal(path)


def test_compressed_features_are_no_bomb(path, monkeypatch):
    """Four thousand photos of four thousand features, in a file of 16 kB."""
    many = numpy.ones((4000, 1), "int16")
    wide = numpy.ones((1, 4000), "float16")
    arrays = {"codes": many, "steps": numpy.ones(1), "basis": wide, "mean": wide[0]}
    numpy.savez(path, names=numpy.array([str(n) for n in range(4000)]), **arrays)
    monkeypatch.setattr(module, "LARGE", 1 << 20)
    assert "would unpack to" in refusal(path)


def test_no_scaling_changes_no_number():
    assert (Scaling.none(4)(ARRAY) == ARRAY).all()


def test_flickr8k_features(real_data):
    """The real file reads, with float16 numbers."""
    found = read_features(real_data / "flickr8k/mobilenetv2_features.npz")
    assert found.array.shape == (7000, 1280) and found.array.dtype == "float16"


@pytest.mark.parametrize(
    "about",
    [{"id": "x", "name": "x", "preprocessing": None}, {"id": "x", "name": "x", "preprocessing": 3}],
)
def test_a_preprocessing_that_is_no_text_is_refused_at_once(path, about):
    """And not only when a model trained on it is loaded."""
    Features(NAMES, ARRAY, about).save(path)
    assert "perhaps `preprocessing`" in refusal(path)


def test_compression_clips_at_eight_deviations_and_keeps_the_sign(path):
    array = numpy.zeros((400, 1), "float32")
    array[:2, 0] = -3, 3
    Features([str(n) for n in range(400)], array).save(path, numpy.ones((1, 1)))
    found = read_features(path).array[:, 0]
    limit = 8 * array.std()
    assert limit < 3
    numpy.testing.assert_allclose(found[:2], [-limit, limit], rtol=1e-3)
    assert (found[2:] == 0).all()


def test_the_canonical_scale_does_not_depend_on_the_means_of_features():
    """The variance is that of each feature around its own mean."""
    words = numpy.random.default_rng(1).poisson(2, (6, 2)).astype("float32")
    near = Scaling.canonical(ARRAY, words, 2)
    far = Scaling.canonical(ARRAY + numpy.array([0, 4, 0, -8], "float32"), words, 2)
    numpy.testing.assert_allclose(far.scale, near.scale, rtol=1e-5)


def test_float16_features_are_standardised_as_float32_ones():
    """Their variances overflow float16."""
    array = (1000 * ARRAY).astype("float16")
    narrow, wide = Scaling.standard(array), Scaling.standard(array.astype("float32"))
    assert (narrow.mean == wide.mean).all() and (narrow.scale == wide.scale).all()


def test_a_newer_format_is_refused_with_the_reason(path):
    names, array = numpy.array(["a", "b"]), numpy.ones((2, 3), "float32")
    numpy.savez(path, names=names, features=array, format=numpy.array(1))
    assert read_features(path).names == ["a", "b"]
    numpy.savez(path, names=names, features=array, format=numpy.array(2))
    with pytest.raises(UserError, match="format 2, this minicap reads formats up to 1"):
        read_features(path)
