"""The ONNX graph against two independent networks, its file, and its identity."""

import os
from pathlib import Path

import numpy as np
import pytest

from minicap.data.scenes.calibrate import forward
from minicap.encoder.image import preprocessing_name
from minicap.encoder.inception import BATCH_NORM_EPSILON, layers
from minicap.encoder.session import SEEDED_ENCODER_ID, Encoder
from minicap.encoder.weights import LayerWeights, Weights, seeded_weights
from minicap.utils.errors import UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from minicap.encoder import graph  # noqa: E402


@pytest.fixture(scope="module")
def weights() -> Weights:
    return seeded_weights()


@pytest.fixture(scope="module")
def model(seeded_file: Path):
    return onnx.load(seeded_file)


@pytest.fixture(scope="module")
def features(seeded: Encoder, images: np.ndarray) -> np.ndarray:
    """Features of all images, encoded as one batch of 32."""
    return seeded.encode(images)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())


# ---- what it computes -----------------------------------------------------------------------


def torch_features(images: np.ndarray, weights: Weights) -> np.ndarray:
    """An independent InceptionV3, without the table, in PyTorch and float64."""
    torch = pytest.importorskip("torch")
    from torch.nn import functional as F

    layer_weights = iter(weights.layers)

    def conv(x, stride=1, padding=0):
        kernel, *rest = (torch.from_numpy(np.asarray(n)).double() for n in next(layer_weights))
        beta, mean, variance = rest
        x = F.conv2d(x, kernel, stride=stride, padding=padding)
        return F.relu(F.batch_norm(x, mean, variance, bias=beta, eps=1e-3))

    def average(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=weights.count_include_pad)

    def tall_and_wide(x):
        return torch.cat([conv(x, padding=(0, 1)), conv(x, padding=(1, 0))], 1)

    x = torch.from_numpy(images).permute(0, 3, 1, 2).double() / 127.5 - 1
    x = conv(conv(conv(x, stride=2)), padding=1)
    x = F.max_pool2d(x, 3, 2)
    x = F.max_pool2d(conv(conv(x)), 3, 2)
    for _ in range(3):
        a = conv(x)
        b = conv(conv(x), padding=2)
        c = conv(conv(conv(x), padding=1), padding=1)
        x = torch.cat([a, b, c, conv(average(x))], 1)
    a = conv(x, stride=2)
    b = conv(conv(conv(x), padding=1), stride=2)
    x = torch.cat([a, b, F.max_pool2d(x, 3, 2)], 1)
    wide, tall = (0, 3), (3, 0)
    for _ in range(4):
        a = conv(x)
        b = conv(conv(conv(x), padding=wide), padding=tall)
        c = conv(x)
        for padding in (tall, wide, tall, wide):
            c = conv(c, padding=padding)
        x = torch.cat([a, b, c, conv(average(x))], 1)
    a = conv(conv(x), stride=2)
    b = conv(conv(conv(conv(x), padding=wide), padding=tall), stride=2)
    x = torch.cat([a, b, F.max_pool2d(x, 3, 2)], 1)
    for _ in range(2):
        a = conv(x)
        b = tall_and_wide(conv(x))
        c = tall_and_wide(conv(conv(x), padding=1))
        x = torch.cat([a, b, c, conv(average(x))], 1)
    assert next(layer_weights, None) is None
    return x.mean((2, 3)).numpy()


def test_agrees_with_pytorch_in_float64(features, weights, images):
    assert relative(features[:2], torch_features(images[:2], weights)) <= 2e-5


def test_average_pooling_that_counts_padding_matches_pytorch(tmp_path, features, weights, images):
    counting = weights._replace(count_include_pad=True)
    model = graph.build(counting)
    graph.save(model, tmp_path / "counting.onnx")
    encoder = Encoder(tmp_path / "counting.onnx", threads=2)
    found = encoder.encode(images[:1])
    assert encoder.id != SEEDED_ENCODER_ID
    assert relative(found, torch_features(images[:1], counting)) <= 2e-5
    assert relative(found, features[:1]) > 1e-3


def test_agrees_with_plain_numpy(features, weights, images):
    kernels = (w.kernel for w in weights.layers)
    expected = forward(images[:2], kernels, lambda index, y: weights.layers[index][1:])
    assert relative(features[:2], expected) <= 2e-5


def test_folding_is_exact():
    rng = np.random.default_rng(0)
    w = LayerWeights(rng.normal(size=(5, 3, 3, 3)), *rng.uniform(0.5, 2, (3, 5)))
    pixels = rng.integers(0, 256, (3, 3, 3))
    y = np.tensordot(w.kernel, pixels / 127.5 - 1, 3)
    expected = w.beta + (y - w.mean) / np.sqrt(w.variance + BATCH_NORM_EPSILON)
    kernel, bias = graph.fold(w, pixels=True)
    assert kernel.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(np.tensordot(kernel, pixels, 3) + bias, expected, rtol=1e-5)


def test_batch_of_32_equals_32_batches_of_one_bit_for_bit(seeded, features, images):
    one_by_one = np.concatenate([seeded.encode(image[None]) for image in images])
    np.testing.assert_array_equal(features, one_by_one)


def test_every_layer_is_alive(model, images):
    """On unseen scenes, no channel is (almost) always zero and none explodes."""
    names = [layer.name for layer in layers()]
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(
        open_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, y in zip(names, session.run(names, {"image": images[:8]}), strict=True):
        assert 0.1 < y.std() < 10, name
        alive = (y > 0).mean((0, 2, 3))
        assert alive.min() > 0.01, name
        assert y.max() < 1000, name


def test_features_distinguish_images(features):
    assert (features.std(0) > 0).all()
    centred = features - features.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    similarity = centred @ centred.T - 2 * np.eye(len(features))
    assert similarity.max() < 0.99
    assert np.abs(features.astype(np.float16) - features).max() < 0.01  # float16 is precise enough


# ---- the file -------------------------------------------------------------------------------


def test_versions_that_onnx_runtime_reads(model):
    assert model.ir_version == 10
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    onnx.checker.check_model(model, full_check=True)


def test_input_output_and_metadata(model):
    (image,), (features,) = model.graph.input, model.graph.output
    assert (image.name, features.name) == ("image", "features")
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [
        "N", 299, 299, 3
    ]  # fmt: skip
    assert [d.dim_param or d.dim_value for d in features.type.tensor_type.shape.dim] == ["N", 2048]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "architecture": "InceptionV3",
        "weights": "seeded-0",
        "encoder_id": SEEDED_ENCODER_ID,
        "preprocessing": "squeeze-bilinear-299",
        "scaling": "x / 127.5 - 1, folded into the first convolution",
        "feature_size": "2048",
        "pooling": "global average; 3x3 average pooling ignores padding",
    }


def test_nine_average_pools_ignore_padding(model):
    pools = [node for node in model.graph.node if node.op_type == "AveragePool"]
    counts = [
        attribute.i
        for node in pools
        for attribute in node.attribute
        if attribute.name == "count_include_pad"
    ]
    assert counts == [0] * 9


def test_saving_is_atomic(tmp_path, model, monkeypatch):
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"the old one")

    def disk_full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UserError, match="No space left"):
        graph.save(model, path)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


# ---- its id ---------------------------------------------------------------------------------


def id_of(model) -> str:
    return graph.encoder_id(model, preprocessing_name("squeeze-bilinear", 299))


def changed(model, change) -> str:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy)
    return id_of(copy)


def test_building_is_reproducible(weights, seeded):
    assert id_of(graph.build(weights)) == SEEDED_ENCODER_ID == seeded.id


def test_names_and_metadata_do_not_change_the_id(model):
    def rename(m):
        m.doc_string = "a note"
        m.producer_name = "another"
        m.graph.name = "another"
        del m.metadata_props[:]
        for node in m.graph.node:
            node.name, node.doc_string = node.name + "!", "a note"
            node.input[:] = [name + "!" for name in node.input]
            node.output[:] = [name + "!" for name in node.output]
        for thing in (*m.graph.initializer, *m.graph.input, *m.graph.output):
            thing.name += "!"

    assert changed(model, rename) == SEEDED_ENCODER_ID


def flip_a_bit(m):
    tensor = m.graph.initializer[100]
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def count_padding(m):
    pool = next(node for node in m.graph.node if node.op_type == "AveragePool")
    next(a for a in pool.attribute if a.name == "count_include_pad").i = 1


def another_operator(m):
    next(node for node in m.graph.node if node.op_type == "Relu").op_type = "Sigmoid"


def another_connection(m):
    m.graph.node[-3].input[:] = list(reversed(m.graph.node[-3].input))


def another_output(m):
    m.graph.output[0].name = "average"


def another_opset(m):
    m.opset_import[0].version = 19


CHANGES = [
    flip_a_bit,
    count_padding,
    another_operator,
    another_connection,
    another_output,
    another_opset,
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_computation_changes_the_id(model, change):
    assert model.graph.node[-3].op_type == "Concat"
    assert changed(model, change) != SEEDED_ENCODER_ID


def test_preprocessing_is_part_of_the_id(model):
    assert graph.encoder_id(model, "nearest-299") != SEEDED_ENCODER_ID


def test_constants_and_subgraphs_count():
    """Weights may also be in Constant nodes and in the branches of an If."""
    helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT

    def make(value: float, name: str) -> str:
        constant = onnx.numpy_helper.from_array(np.array([value], np.float32), name)
        out = helper.make_tensor_value_info(name, FLOAT, [1])
        inner = helper.make_node("Constant", [], [name], value=constant)
        branch = helper.make_graph([inner], name, [], [out])
        condition = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        y = helper.make_tensor_value_info("y", FLOAT, [1])
        return id_of(helper.make_model(helper.make_graph([node], "g", [condition], [y])))

    assert make(1, "a") == make(1, "b") != make(2, "a")


def test_a_subgraphs_own_tensor_differs_from_an_outer_one():
    """Each is the first tensor of its graph; which of them a node reads changes the id."""
    helper, FLOAT, BOOL = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL

    def make(read: str) -> str:
        nodes = [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Neg", [read], ["b"])]
        branch = helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("b", FLOAT, [1])])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        inputs = [
            helper.make_tensor_value_info("x", FLOAT, [1]),
            helper.make_tensor_value_info("c", BOOL, []),
        ]
        y = helper.make_tensor_value_info("y", FLOAT, [1])
        return id_of(helper.make_model(helper.make_graph([node], "g", inputs, [y])))

    assert make("a") != make("x")
