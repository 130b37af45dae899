"""Networks of your own in minicap's form: their features are what they themselves compute."""

import numpy as np
import pytest
from PIL import Image

from minicap.encoder.session import Encoder
from minicap.encoder.wrap import Wrapping, wrap
from minicap.export import main
from minicap.utils.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

IMAGENET = Wrapping(scale=255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def network(path, layout="nchw", pooled=True, size=32, batch="N", kind=TensorProto.FLOAT):
    """A small convolutional network: like a ResNet (NCHW, pooled) or like Keras (NHWC, a map)."""
    rng = np.random.default_rng(0)
    half = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    stored = [
        numpy_helper.from_array(rng.normal(size=(7, 3, 3, 3)).astype(half), "kernel"),
        numpy_helper.from_array(rng.normal(size=7).astype(half), "bias"),
    ]
    shape = [batch, 3, size, size] if layout == "nchw" else [batch, size, size, 3]
    nodes, x = [], "image"  # the names that minicap's own encoders have
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [x], ["first"], perm=[0, 3, 1, 2]))
        x = "first"
    nodes.append(helper.make_node("Conv", [x, "kernel", "bias"], ["conv"], strides=[2, 2]))
    nodes.append(helper.make_node("Relu", ["conv"], ["relu"]))
    if pooled:
        nodes.append(helper.make_node("GlobalAveragePool", ["relu"], ["pool"]))
        nodes.append(helper.make_node("Flatten", ["pool"], ["features"]))
        out = [batch, 7]
    elif layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["relu"], ["features"], perm=[0, 2, 3, 1]))
        out = [batch, None, None, 7]
    else:
        nodes.append(helper.make_node("Identity", ["relu"], ["features"]))
        out = [batch, 7, None, None]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("features", kind, out)],
        stored,
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def expected_features(path, pixels, layout, how):
    """What the network itself computes, one image at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kind = np.float16 if "16" in session.get_inputs()[0].type else np.float32
    rows = []
    for image in pixels:
        x = (image / how.scale - np.array(how.mean)) / np.array(how.std)
        x = x.transpose(2, 0, 1) if layout == "nchw" else x
        (y,) = session.run(None, {"image": x[None].astype(kind)})
        rows.append(y.mean(axis=(2, 3) if layout == "nchw" else (1, 2)) if y.ndim == 4 else y)
    return np.concatenate(rows).astype(np.float32)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("how", [IMAGENET, Wrapping(scale=127.5, mean=(1.0,)), Wrapping()])
def test_features_are_those_of_the_network(tmp_path, layout, pooled, how):
    path = network(tmp_path / "net.onnx", layout, pooled)
    onnx.save(wrap(path, how, "squeeze-bilinear"), tmp_path / "wrapped.onnx")
    encoder = Encoder(tmp_path / "wrapped.onnx")
    assert (encoder.size, encoder.feature_size, encoder.name) == (32, 7, "net")
    assert encoder.preprocessing == "squeeze-bilinear-32"
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected = expected_features(path, pixels, layout, how)
    np.testing.assert_allclose(encoder.encode(pixels), expected, rtol=1e-4, atol=1e-4)


def test_half_precision_and_a_fixed_batch(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    for name, options in ("half", {"kind": TensorProto.FLOAT16}), ("fixed", {"batch": 2}):
        path = network(tmp_path / f"{name}.onnx", **options)
        onnx.save(wrap(path, IMAGENET, "squeeze-bilinear"), tmp_path / "wrapped.onnx")
        found = Encoder(tmp_path / "wrapped.onnx")([*pixels])
        if name == "half":
            expected = expected_features(path, pixels, "nchw", IMAGENET)
            np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)
        else:
            same = network(tmp_path / "any.onnx")
            expected = expected_features(same, pixels, "nchw", IMAGENET)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_id_depends_on_scaling_and_size(tmp_path):
    path = network(tmp_path / "net.onnx", size=None, layout="nchw")
    ids = set()
    for how in (IMAGENET, Wrapping(scale=255), Wrapping()):
        for size in 32, 48:
            model = wrap(path, Wrapping(None, how.scale, how.mean, how.std, size), "crop-bilinear")
            ids.add(next(p.value for p in model.metadata_props if p.key == "encoder_id"))
    assert len(ids) == 6


def test_the_command_and_its_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = network(tmp_path / "net.onnx")
    words = "--scale", "255", "--mean", "0.485", "0.456", "0.406", "--std", "0.2", "0.2", "0.2"
    assert main([str(path), *words]) == 0
    assert "net-encoder.onnx" in capsys.readouterr().out
    Image.new("RGB", (50, 40), "red").save("a.png")
    assert Encoder("net-encoder.onnx")(["a.png"]).shape == (1, 7)
    network(tmp_path / "any.onnx", size=None)
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    for words, message in (
        (["any.onnx"], r"has the shape \('\?', 3, '\?', '\?'\): give its --size"),
        (["net.onnx", "--size=64"], "minicap's images are square, of one --size"),
        (["net.onnx", "--layout=nhwc"], "does not fit --layout nhwc"),
        (["net.onnx", "--mean", "1", "2"], "--mean must be one finite number or three"),
        (["net.onnx", "--std=0"], "--scale and --std must be greater than 0"),
        (["net.onnx", "--out=net.onnx"], "would replace the input"),
        (["net-encoder.onnx"], "must be float, not uint8; use it as it is with --encoder"),
        (["broken.onnx"], "damaged, or not an ONNX file"),
        (["gone.onnx"], "gone.onnx: cannot be read"),
        (["--scale=2"], "are for an .onnx file"),
    ):
        with pytest.raises(UserError, match=message):
            main(words)
