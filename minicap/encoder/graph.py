"""Table and weights -> ONNX: folds what can be folded, writes the file, and gives it an identity.

Batch norm and the scaling of pixels disappear into the convolutions, in float64; what remains is
convolution, ReLU, pooling and concatenation.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minicap.encoder.image import preprocessing_name
from minicap.encoder.inception import (
    BATCH_NORM_EPSILON,
    FEATURE_SIZE,
    IMAGE_SIZE,
    Conv,
    Pool,
    network,
)
from minicap.encoder.weights import LayerWeights, Weights
from minicap.utils.files import replacing

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # not onnx's newest: ONNX Runtime reads that only some releases later
OPSET = 20


def fold(w: LayerWeights, pixels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm into the convolution: kernel (filters, channels, h, w), bias (filters,), float32.

    With s = 1 / sqrt(variance + epsilon):

        beta + (conv(x, kernel) - mean) s = conv(x, kernel s) + (beta - mean s)

    With `pixels`, x / 127.5 - 1 too, so that the convolution takes 0 to 255 (exact only without
    zero padding, which the first convolution does not have):

        conv(x / 127.5 - 1, kernel) = conv(x, kernel / 127.5) - sum(kernel)
    """
    scale = 1 / np.sqrt(w.variance.astype(np.float64) + BATCH_NORM_EPSILON)
    kernel = w.kernel * scale[:, None, None, None]
    bias = w.beta - w.mean * scale
    if pixels:
        # fsum rounds once: the same bits on every machine, whatever the order of summation
        bias -= [math.fsum(k.ravel()) for k in kernel]
        kernel /= 127.5
    return kernel.astype(np.float32), bias.astype(np.float32)


def build(weights: Weights, preprocessing: str = "squeeze-bilinear") -> "onnx.ModelProto":
    """InceptionV3 with these weights as an ONNX model.

    Input `image` uint8 (N, 299, 299, 3), RGB, any N; output `features` float32 (N, 2048): the last
    block's averages over all its pixels. The file's metadata say what it is, and with which
    `preprocessing`, one of image.PREPROCESSINGS, a picture is made to fit.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    numbers = iter(weights.layers)

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(name: str, c: Conv, x: str) -> str:
        kernel, bias = fold(next(numbers), pixels=not initializers)
        initializers.append(numpy_helper.from_array(kernel, f"{name}/kernel"))
        initializers.append(numpy_helper.from_array(bias, f"{name}/bias"))
        inputs = [x, f"{name}/kernel", f"{name}/bias"]
        top, left = (c.height // 2, c.width // 2) if c.padding == "same" else (0, 0)
        strides, pads = [c.stride, c.stride], [top, left, top, left]
        y = node("Conv", inputs, f"{name}/conv", strides=strides, pads=pads)
        return node("Relu", [y], name)

    def pool(name: str, p: Pool, x: str) -> str:
        pad = 1 if p.padding == "same" else 0
        window = {"kernel_shape": [3, 3], "strides": [p.stride] * 2, "pads": [pad] * 4}
        if p.kind == "max":
            return node("MaxPool", [x], name, **window)
        counts = int(weights.average_counts_padding)
        return node("AveragePool", [x], name, count_include_pad=counts, **window)

    def concat(name: str, ways: list[str]) -> str:
        return node("Concat", ways, name, axis=1)

    x = node("Transpose", ["image"], "image/channels_first", perm=[0, 3, 1, 2])
    x = node("Cast", [x], "image/float", to=TensorProto.FLOAT)
    x = network(x, conv, pool, concat)
    x = node("GlobalAveragePool", [x], "average")
    node("Flatten", [x], "features")

    shape: list[str | int | None] = ["N", IMAGE_SIZE, IMAGE_SIZE, 3]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURE_SIZE])
    graph = helper.make_graph(nodes, "InceptionV3", [image], [features], initializers)
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="minicap",
    )
    prepared = preprocessing_name(preprocessing, IMAGE_SIZE)
    border = "counts" if weights.average_counts_padding else "ignores"
    metadata = {
        "architecture": "InceptionV3",
        "weights": weights.name,
        "encoder_id": encoder_id(model, prepared),
        "preprocessing": prepared,
        "scaling": "x / 127.5 - 1, folded into the first convolution",
        "feature_size": str(FEATURE_SIZE),
        "pooling": f"global average; 3x3 average pooling {border} padding",
    }
    if weights.sha256:
        metadata["weights_sha256"] = weights.sha256
    helper.set_model_props(model, metadata)
    return model


def encoder_id(model: "onnx.ModelProto", preprocessing: str) -> str:
    """What an encoder computes, as SHA-256 in hex: its graph, its weights and its preprocessing.

    Names, metadata, doc strings and the file's layout do not count; every operator, attribute,
    connection and weight does. Two encoders with the same id give the same features.
    """
    digest = hashlib.sha256()
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    digest.update(repr((preprocessing, opsets)).encode())
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    _hash_graph(model.graph, digest, {})
    return digest.hexdigest()


def _hash_graph(graph: "onnx.GraphProto", digest: Any, outer: dict[str, Any]) -> None:
    """Feed a graph to the digest. A tensor goes by its content or by the place where it is made."""
    from onnx import AttributeProto, helper

    known = dict(outer)  # tensor name -> what stands for it; "" is an optional input left out
    for tensor in graph.initializer:
        known[tensor.name] = _fingerprint(tensor)
    for sparse in graph.sparse_initializer:
        known[sparse.values.name] = _fingerprint(sparse.values), _fingerprint(sparse.indices)
    made = 0

    def made_here(name: str) -> None:
        nonlocal made
        known[name] = len(outer), made  # the place, and in a subgraph whose place it is
        made += 1

    def feed(*things: Any) -> None:
        digest.update(repr(things).encode() + b"\n")

    for value in graph.input:
        if value.name not in known:
            tensor_type = value.type.tensor_type
            sides = [side.dim_value for side in tensor_type.shape.dim]  # 0: any
            feed("input", tensor_type.elem_type, sides)
            made_here(value.name)
    for node in graph.node:
        inputs = [known[name] if name else None for name in node.input]
        feed("node", node.domain, node.op_type, inputs, len(node.output))
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            value = helper.get_attribute_value(attribute)
            if attribute.type == AttributeProto.GRAPH:
                feed(attribute.name)
                _hash_graph(value, digest, known)
            elif attribute.type == AttributeProto.TENSOR:
                feed(attribute.name, _fingerprint(value))
            else:
                feed(attribute.name, list(value) if isinstance(value, Sequence) else value)
        for name in node.output:
            made_here(name)
    feed("outputs", [known[value.name] for value in graph.output])


def _fingerprint(tensor: "onnx.TensorProto") -> tuple[int, list[int], str]:
    """Type, shape and content of a constant, without its name."""
    from onnx import numpy_helper

    content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest()
    return tensor.data_type, list(tensor.dims), content


def save(model: "onnx.ModelProto", path: Path) -> None:
    """Write the file, all or nothing. UserError when it cannot be written (a full disk)."""
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
