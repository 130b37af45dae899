"""Build the ONNX graph from the table and the weights, save it, and compute its id.

Batch norm and the scaling of pixels are folded into the convolutions in float64. What remains is
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

MAP = "map"  # name of a second output: the features before pooling
IR_VERSION = 10  # not the newest: ONNX Runtime supports that only some releases later
OPSET = 20


def fold(w: LayerWeights, pixels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Fold batch norm into the convolution.

    With s = 1 / sqrt(variance + epsilon):

        beta + (conv(x, kernel) - mean) s = conv(x, kernel s) + (beta - mean s)

    With `pixels`, also fold the scaling x / 127.5 - 1, so that the convolution takes 0 to 255. This
    is exact only without zero padding, which the first convolution does not have:

        conv(x / 127.5 - 1, kernel) = conv(x, kernel / 127.5) - sum(kernel)

    Returns:
        Kernel (filters, channels, height, width) and bias (filters,), both float32.
    """
    scale = 1 / np.sqrt(w.variance.astype(np.float64) + BATCH_NORM_EPSILON)
    kernel = w.kernel * scale[:, None, None, None]
    bias = w.beta - w.mean * scale
    if pixels:
        # fsum rounds once, so the result does not depend on the order of summation
        bias -= [math.fsum(k.ravel()) for k in kernel]
        kernel /= 127.5
    return kernel.astype(np.float32), bias.astype(np.float32)


def build(weights: Weights, preprocessing: str = "squeeze-bilinear") -> "onnx.ModelProto":
    """Build InceptionV3 with these weights as an ONNX model.

    Args:
        weights: of all convolutions.
        preprocessing: one of `image.PREPROCESSINGS`, stored in the metadata.

    Returns:
        A model with the input `image`, uint8 (N, 299, 299, 3), RGB, for any N, and the output
        `features`, float32 (N, 2048): the last block's global average. Its metadata describe it.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    layer_weights = iter(weights.layers)

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(name: str, c: Conv, x: str) -> str:
        kernel, bias = fold(next(layer_weights), pixels=not initializers)
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
        include = int(weights.count_include_pad)
        return node("AveragePool", [x], name, count_include_pad=include, **window)

    def concat(name: str, branches: list[str]) -> str:
        return node("Concat", branches, name, axis=1)

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
    border = "counts" if weights.count_include_pad else "ignores"
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
    """Compute an encoder's id: the SHA-256, in hex, of its graph, weights and preprocessing.

    Every operator, attribute, connection and weight counts. Names, metadata, doc strings, the
    file's layout, and a map as a second output (`maps.with_map`) do not. Two encoders with the same
    id give the same features.
    """
    digest = hashlib.sha256()
    opsets = sorted((opset.domain, opset.version) for opset in model.opset_import)
    digest.update(repr((preprocessing, opsets)).encode())
    for function in model.functions:
        digest.update(function.SerializeToString(deterministic=True))
    _hash_graph(model.graph, digest, {})
    return digest.hexdigest()


def _hash_graph(graph: "onnx.GraphProto", digest: Any, outer: dict[str, Any]) -> None:
    """Hash a graph. A tensor is identified by its content or by the position of its producer."""
    from onnx import AttributeProto, helper

    known = dict(outer)  # tensor name -> its identity; an omitted optional input is named ""
    for tensor in graph.initializer:
        known[tensor.name] = _fingerprint(tensor)
    for sparse in graph.sparse_initializer:
        known[sparse.values.name] = _fingerprint(sparse.values), _fingerprint(sparse.indices)
    count = 0
    extra = {value.name for value in graph.output} & {MAP}

    def number(name: str) -> None:
        nonlocal count
        known[name] = len(outer), count  # len(outer) distinguishes the subgraphs
        count += 1

    def feed(*values: Any) -> None:
        digest.update(repr(values).encode() + b"\n")

    for value in graph.input:
        if value.name not in known:
            tensor_type = value.type.tensor_type
            shape = [dim.dim_value for dim in tensor_type.shape.dim]  # 0: any
            feed("input", tensor_type.elem_type, shape)
            number(value.name)
    for node in graph.node:
        if node.op_type == "Identity" and node.output[0] in extra:
            continue
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
            number(name)
    feed("outputs", [known[value.name] for value in graph.output if value.name not in extra])


def _fingerprint(tensor: "onnx.TensorProto") -> tuple[int, list[int], str]:
    """Return a constant's type, shape and hashed content."""
    from onnx import numpy_helper

    content = hashlib.sha256(numpy_helper.to_array(tensor).tobytes()).hexdigest()
    return tensor.data_type, list(tensor.dims), content


def save(model: "onnx.ModelProto", path: Path) -> None:
    """Write the model to a file atomically.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
