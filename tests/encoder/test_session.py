"""Running encoders: any image encoder, its file, the cache, and errors a user can fix."""

import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minicap.encoder import graph, session, weights
from minicap.encoder.image import PREPROCESSINGS, load_image, prepare
from minicap.encoder.session import SEEDED_ENCODER_ID, Encoder, cache_folder, seeded_encoder
from minicap.utils.errors import UnusableImage, UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def tiny(path: Path, size: int = 4, batch="N", width: int = 3, **changes) -> Path:
    """Save a small encoder: an image's mean colour (N, 3), or a linear map of it (N, width)."""
    helper, kinds = onnx.helper, onnx.TensorProto
    options = {"kind": kinds.UINT8, "shape": [batch, size, size, 3], "about": {}} | changes
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
    ]
    constants = []
    if width != 3:
        nodes.append(helper.make_node("MatMul", ["mean", "mixture"], ["features"]))
        mixture = np.random.RandomState(0).random_sample((3, width)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(mixture, "mixture"))
    image = helper.make_tensor_value_info("image", options["kind"], options["shape"])
    (made,) = nodes[-1].output
    features = helper.make_tensor_value_info(made, kinds.FLOAT, [batch, width])
    model = helper.make_model(
        helper.make_graph(nodes, "tiny", [image], [features], constants),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    helper.set_model_props(model, options["about"])
    graph.save(model, path)
    return path


# ---- encoding -------------------------------------------------------------------------------


def test_files_images_and_arrays_alike(seeded, tmp_path, images):
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    found = seeded([path, str(path), Image.fromarray(images[0]), images[0]])
    assert found.shape == (4, 2048) and found.dtype == np.float32
    np.testing.assert_array_equal(found, np.repeat(seeded.encode(images[:1]), 4, 0))
    assert seeded([]).shape == (0, 2048)


def test_seeded_encoder_describes_itself(seeded):
    assert seeded.id == SEEDED_ENCODER_ID
    assert (seeded.name, seeded.size, seeded.feature_size) == ("seeded-0", 299, 2048)
    assert seeded.preprocessing == "squeeze-bilinear-299"


def test_several_batches_keep_the_order(tmp_path):
    encoder = Encoder(tiny(tmp_path / "tiny.onnx"))
    colours = np.random.default_rng(0).integers(0, 256, (70, 3), np.uint8)
    found = encoder([np.broadcast_to(colour, (4, 4, 3)) for colour in colours])
    np.testing.assert_allclose(found, colours, atol=1e-4)


def test_preprocessing_of_the_file_or_the_requested_one(tmp_path):
    open_, says = (
        tiny(tmp_path / "open.onnx"),
        tiny(tmp_path / "says.onnx", about={"preprocessing": "squeeze-nearest-4"}),
    )
    assert Encoder(open_).preprocessing == "squeeze-bilinear-4"
    assert Encoder(says).preprocessing == "squeeze-nearest-4"
    assert Encoder(says, preprocessing="squeeze-nearest").id == Encoder(says).id
    assert Encoder(open_, preprocessing="squeeze-nearest").id == Encoder(says).id
    assert Encoder(open_).id != Encoder(says).id
    with pytest.raises(UserError, match="exported for the preprocessing squeeze-nearest-4, not"):
        Encoder(says, preprocessing="squeeze-bilinear")
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    for method in PREPROCESSINGS:
        encoder = Encoder(open_, preprocessing=method)
        expected = prepare(Image.fromarray(image), method, 4)
        np.testing.assert_array_equal(encoder.pixels(image), expected)
        np.testing.assert_allclose(encoder([image])[0], expected.mean((0, 1)), rtol=1e-6)


def test_a_quantised_encoder_names_its_original(tmp_path):
    encoder = Encoder(tiny(tmp_path / "a.onnx", about={"float32_encoder_id": "whole"}))
    assert encoder.float32_id == encoder.about()["float32_id"] == "whole"
    plain = Encoder(tiny(tmp_path / "a.onnx"))
    assert set(plain.about()) == {"id", "name", "preprocessing", "feature_size"}


def test_a_file_with_a_fixed_batch(tmp_path):
    encoder = Encoder(tiny(tmp_path / "tiny.onnx", batch=4))
    colours = np.random.default_rng(0).integers(0, 256, (6, 3), np.uint8)
    found = encoder([np.broadcast_to(colour, (4, 4, 3)) for colour in colours])
    np.testing.assert_allclose(found, colours, atol=1e-4)


def test_a_broken_image_is_named(seeded, tmp_path, images):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no")
    with pytest.raises(UnusableImage, match=r"broken\.jpg"):
        seeded([images[0], path])
    with pytest.raises(ValueError, match="uint8"):
        seeded([images[0].astype(float)])


def test_real_mobilenet_gives_the_stored_features(real_data):
    encoder = Encoder(real_data / "encoders/mobilenetv2.onnx", threads=2)
    assert (encoder.size, encoder.feature_size) == (224, 1280)
    assert (encoder.name, encoder.preprocessing) == ("mobilenetv2", "squeeze-bilinear-224")
    stored = np.load(real_data / "flickr8k/mobilenetv2_features.npz")
    row = {name: n for n, name in enumerate(stored["names"])}
    photos = sorted((real_data / "flickr8k/images").glob("*.jpg"))[::5]
    assert len(photos) == 50
    found = encoder(photos)
    expected = stored["features"][[row[photo.name] for photo in photos]].astype(np.float32)
    cosine = (found * expected).sum(1)
    cosine /= np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.9999


def test_real_photos_at_full_size_make_healthy_features(seeded, real_data):
    photos = sorted((real_data / "inception_v3_golden/images").iterdir())[:4]
    features = seeded(photos)
    assert np.isfinite(features).all() and (features.std(0) > 0).mean() > 0.9
    pixels = np.stack([prepare(load_image(photo), "squeeze-bilinear", 299) for photo in photos])
    np.testing.assert_array_equal(features, seeded.encode(pixels))


# ---- unusable files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": 1},
        {"shape": ["N", "height", "width", 3]},
        {"shape": ["N", 4, 6, 3]},
        {"shape": ["N", 3, 4, 4]},
    ],
)
def test_another_signature_is_described(tmp_path, changes):
    path = tiny(tmp_path / "other.onnx", **changes)
    with pytest.raises(
        UserError, match=r"other\.onnx: not an encoder: .* inputs image tensor\(.* an encoder has"
    ):
        Encoder(path)


def test_another_preprocessing_is_refused(tmp_path):
    path = tiny(tmp_path / "other.onnx", about={"preprocessing": "centre-cubic-4"})
    with pytest.raises(UserError, match="needs the preprocessing centre-cubic-4"):
        Encoder(path)


def test_broken_and_missing_files(tmp_path):
    whole = tiny(tmp_path / "whole.onnx").read_bytes()
    for name, content in {"empty": b"", "text": b"hello\n" * 99, "half": whole[:99]}.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.onnx: not a usable ONNX file") as caught:
            Encoder(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.onnx: no such encoder file"):
        Encoder(tmp_path / "gone.onnx")
    with pytest.raises(UserError, match="no such encoder file"):
        Encoder(tmp_path)


# ---- devices and packages -------------------------------------------------------------------


def test_unknown_and_missing_devices(tmp_path):
    path = tiny(tmp_path / "tiny.onnx")
    with pytest.raises(UserError, match="choose cpu or cuda"):
        Encoder(path, device="tpu")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UserError, match=r"device cuda: .*'.\[gpu\]'"):
            Encoder(path, device="cuda")


def test_a_silent_fall_back_to_the_cpu_is_an_error(tmp_path):
    requested = []

    def inference_session(path, options, providers, **_):
        requested.extend(providers)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    fake = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=SimpleNamespace,
        InferenceSession=inference_session,
        preload_dlls=lambda: None,
    )
    with pytest.raises(UserError, match="fell back to CPUExecutionProvider"):
        session._session(fake, tmp_path / "a.onnx", b"", "cuda", None)
    assert requested == ["CUDAExecutionProvider"]


def test_gpu_features_stay_on_the_gpu_and_match_the_cpu(seeded, seeded_file, images):
    """The tolerance allows for the order of sums and for TF32, which the CUDA provider uses."""
    cupy = pytest.importorskip("cupy", reason="a GPU test: CuPy is not installed")
    try:
        encoder = Encoder(seeded_file, "cuda")
    except UserError as error:
        pytest.skip(f"a GPU test: {error}")
    features = encoder(images)
    assert isinstance(features, cupy.ndarray) and features.dtype == np.float32
    assert encoder.encode(images[:1]).shape == (1, 2048)
    expected = seeded(images)
    difference = np.linalg.norm(features.get() - expected, axis=1) / np.linalg.norm(
        expected, axis=1
    )
    print(f"relative difference between GPU and CPU: {difference.max():.1e}")
    assert difference.max() < 1e-3


@pytest.mark.parametrize("missing", ["onnxruntime", "onnx"])
def test_a_missing_package_gives_a_one_line_error(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"needs {missing}, .*pip install -e '.\[cpu\]'"):
        seeded_encoder()
    with pytest.raises(UserError, match=rf"needs {missing}"):
        Encoder("whatever.onnx")


@pytest.mark.parametrize(
    "installed, warns",
    [
        ({"onnxruntime", "onnxruntime-gpu"}, True),
        ({"onnxruntime"}, False),
        ({"onnxruntime-gpu"}, False),
    ],
)
def test_both_onnxruntimes_warn(tmp_path, monkeypatch, installed, warns):
    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(session.metadata, "version", version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Encoder(tiny(tmp_path / "tiny.onnx"))
    assert [("overwrite each other" in str(w.message)) for w in caught] == [True] * warns


def test_importing_the_encoder_loads_nothing_heavy():
    code = (
        "import sys, minicap.encoder.session\n"
        "heavy = {'onnx', 'onnxruntime', 'torch', 'PIL.Image', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the cache ------------------------------------------------------------------------------


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MINICAP_CACHE")
    monkeypatch.setattr(session.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "minicap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/minicap"


def test_built_once_and_rebuilt_when_damaged(seeded_file, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path / "new/folder"))
    seeded_encoder()
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "building the encoder inception_v3-seeded" in err
    (path,) = (tmp_path / "new/folder").iterdir()
    assert path.name == seeded_file.name
    assert path.read_bytes() == seeded_file.read_bytes()  # the same bytes, built twice

    monkeypatch.setattr(graph, "build", lambda weights: pytest.fail("built although it exists"))
    assert seeded_encoder().id == SEEDED_ENCODER_ID
    assert capfd.readouterr().err == ""

    # A flipped bit in the middle of some kernel leaves a valid ONNX file; half a file does not.
    whole = bytearray(seeded_file.read_bytes())
    monkeypatch.setattr(graph, "build", lambda weights: onnx.load(seeded_file))
    whole[len(whole) // 2] ^= 1
    for damaged in (whole, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert seeded_encoder().id == SEEDED_ENCODER_ID
        assert "is damaged" in capfd.readouterr().err
        assert path.read_bytes() == seeded_file.read_bytes()
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_device_does_not_rebuild(seeded, cache, monkeypatch):
    """An intact file stays, whatever else is wrong."""
    monkeypatch.setenv("MINICAP_CACHE", str(cache))
    monkeypatch.setattr(graph, "build", lambda weights: pytest.fail("built although it exists"))
    with pytest.raises(UserError, match="choose cpu or cuda"):
        seeded_encoder(device="tpu")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path / "file/cache"))
    monkeypatch.setattr(graph, "build", lambda weights: None)
    with pytest.raises(UserError, match="cannot write .*file/cache"):
        seeded_encoder()


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch, seeded_file):
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path))
    monkeypatch.setattr(graph, "build", lambda weights: onnx.load(seeded_file))

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UserError, match="cannot write .*No space left on device"):
        seeded_encoder()
    assert list(tmp_path.iterdir()) == []


def test_a_build_with_another_id_is_refused(tmp_path, monkeypatch, seeded_file):
    """If a machine ever builds other weights, features must not differ silently."""
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path))

    def build(seeded: weights.Weights):
        model = onnx.load(seeded_file)
        tensor = model.graph.initializer[0]
        tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
        return model

    monkeypatch.setattr(graph, "build", build)
    with pytest.raises(UserError, match="a different encoder"):
        seeded_encoder()


@pytest.mark.parametrize("cached", [True, False])
def test_the_seeded_encoder_gets_the_device_and_threads(tmp_path, monkeypatch, cached):
    monkeypatch.setenv("MINICAP_CACHE", str(tmp_path))
    path, calls = tmp_path / f"inception_v3-seeded-{SEEDED_ENCODER_ID[:12]}.onnx", []
    if cached:
        path.touch()

    def encoder(*arguments):
        calls.append(arguments)
        return SimpleNamespace(id=SEEDED_ENCODER_ID)

    monkeypatch.setattr(session, "Encoder", encoder)
    monkeypatch.setattr(weights, "seeded_weights", lambda: None)
    monkeypatch.setattr(graph, "build", lambda _: None)
    monkeypatch.setattr(graph, "save", lambda _, path: path.touch())
    seeded_encoder("cpu", 3)
    assert calls == [(path, "cpu", 3)]
