"""Wrap any ONNX image network into minicap's form: uint8 images in, features out.

The network may take float images in either layout, scaled in any linear way, and may give a vector
or a map of features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from minicap.encoder.graph import encoder_id
from minicap.encoder.image import preprocessing_name
from minicap.utils.errors import UserError

if TYPE_CHECKING:
    import onnx

Layout = Literal["nchw", "nhwc"]
MAX_SIZE = 4096  # pixels; more is a typing error


@dataclass(frozen=True)
class Wrapping:
    """How a network of your own takes images. Each field is an option of `minicap export`."""

    layout: Layout | None = None
    """for a network of your own: its input is (N, 3, size, size) or (N, size, size, 3) [default:
    as its input's shape says]"""
    scale: float = 1.0
    """for a network of your own: divide pixels, which are from 0 to 255, by this"""
    mean: tuple[float, ...] = (0.0,)
    """then subtract this; one number, or one each for red, green and blue"""
    std: tuple[float, ...] = (1.0,)
    """then divide by this; one number or three"""
    size: int | None = None
    """height and width of its input in pixels, if the file does not fix them"""

    def check(self) -> None:
        """Check that every value is in range.

        Raises:
            UserError: a value is out of range. The message names the option.
        """
        for name, values in ("mean", self.mean), ("std", self.std):
            if len(values) not in (1, 3) or not np.isfinite(values).all():
                raise UserError(f"--{name} must be one finite number or three")
        if not (np.isfinite(self.scale) and self.scale > 0 and min(self.std) > 0):
            raise UserError("--scale and --std must be greater than 0, and finite")
        if self.size is not None and not 1 <= self.size <= MAX_SIZE:
            raise UserError(f"--size must be from 1 to {MAX_SIZE:,}")


def wrap(path: Path, how: Wrapping, preprocessing: str) -> "onnx.ModelProto":
    """Read an ONNX file and wrap its network.

    Args:
        path: a file with one image input. Its first output is the features: (N, F), or a map of
            them, of which the mean over all positions is taken.
        how: what the network's input is like.
        preprocessing: one of `image.PREPROCESSINGS`, stored in the metadata.

    Returns:
        A model with one input, uint8 (N, size, size, 3), RGB, and one output, float32 (N, F).

    Raises:
        UserError: the file is damaged, or its network does not take or give what it should.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    how.check()
    try:
        model = onnx.load(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # protobuf's error classes have no common base
        raise UserError(f"{path}: damaged, or not an ONNX file") from error
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or not graph.output:
        names = ", ".join(value.name for value in inputs)
        raise UserError(f"{path}: one image input is needed; the inputs are: {names or 'none'}")
    (image,), output = inputs, graph.output[0]
    kind = image.type.tensor_type.elem_type
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        found = TensorProto.DataType.Name(kind).lower()
        advice = "; use it as it is with --encoder" if kind == TensorProto.UINT8 else ""
        raise UserError(f"{path}: the input {image.name} must be float, not {found}{advice}")
    batch, layout, size = _shape(path, image, how)
    first, last = layout == "nchw", layout == "nhwc"
    same, to_first = [0, 1, 2, 3], [0, 3, 1, 2]  # orders of the dimensions
    half = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    black = np.zeros((batch or 1, *((3, size, size) if first else (size, size, 3))), half)
    shape = _output_shape(path, model, black)
    if len(shape) not in (2, 4):
        raise UserError(
            f"{path}: the output {output.name} has the shape {shape}; it must be (N, F), or a map "
            "of four dimensions"
        )
    mean, std = (np.broadcast_to(np.array(values), 3) for values in (how.mean, how.std))
    for name, values in ("factor", 1 / (how.scale * std)), ("shift", -mean / std):
        per_channel = values.astype(np.float32).reshape((3, 1, 1) if first else (3,))
        graph.initializer.append(numpy_helper.from_array(per_channel, f"minicap/{name}"))
    before = [
        helper.make_node("Cast", ["minicap/image"], ["minicap/float"], to=TensorProto.FLOAT),
        helper.make_node(
            "Transpose", ["minicap/float"], ["minicap/input"], perm=to_first if first else same
        ),
        helper.make_node("Mul", ["minicap/input", "minicap/factor"], ["minicap/scaled"]),
        helper.make_node("Add", ["minicap/scaled", "minicap/shift"], ["minicap/shifted"]),
        helper.make_node("Cast", ["minicap/shifted"], [image.name], to=kind),
    ]
    after = [helper.make_node("Cast", [output.name], ["minicap/output"], to=TensorProto.FLOAT)]
    if len(shape) == 4:
        after += [
            helper.make_node(
                "Transpose", ["minicap/output"], ["minicap/map"], perm=to_first if last else same
            ),
            helper.make_node("GlobalAveragePool", ["minicap/map"], ["minicap/average"]),
            helper.make_node("Flatten", ["minicap/average"], ["minicap/features"]),
        ]
    else:
        after.append(helper.make_node("Identity", ["minicap/output"], ["minicap/features"]))
    width = shape[3] if len(shape) == 4 and last else shape[1]
    pixels = helper.make_tensor_value_info(
        "minicap/image", TensorProto.UINT8, [batch or "N", size, size, 3]
    )
    features = helper.make_tensor_value_info(
        "minicap/features", TensorProto.FLOAT, [batch or "N", width]
    )
    graph.input.remove(image)
    graph.input.insert(0, pixels)
    del graph.output[:]
    graph.output.append(features)
    for number, node in enumerate(before):
        graph.node.insert(number, node)
    graph.node.extend(after)
    prepared = preprocessing_name(preprocessing, size)
    metadata = {
        "weights": path.stem,
        "encoder_id": encoder_id(model, prepared),
        "preprocessing": prepared,
        "scaling": f"(x / {how.scale:g} - {list(how.mean)}) / {list(how.std)}, {layout}",
        "feature_size": str(width),
        "pooling": "global average" if len(shape) == 4 else "the network's own",
    }
    helper.set_model_props(model, metadata)
    return model


def _shape(
    path: Path, image: "onnx.ValueInfoProto", how: Wrapping
) -> tuple[int | None, Layout, int]:
    """Find the batch size (None: any), the layout and the image size of a network's input."""
    dims = [dim.dim_value or None for dim in image.type.tensor_type.shape.dim]
    shown = f"the input {image.name} has the shape {tuple(dim or '?' for dim in dims)}"
    if len(dims) != 4:
        raise UserError(f"{path}: {shown}; an image has four dimensions")
    fits: dict[Layout, bool] = {"nchw": dims[1] in (3, None), "nhwc": dims[3] in (3, None)}
    layout = how.layout or next((name for name in fits if dims[name.index("c")] == 3), None)
    if not layout:
        raise UserError(f"{path}: {shown}: give its --layout, nchw or nhwc")
    if not fits[layout]:
        raise UserError(f"{path}: {shown}, which does not fit --layout {layout}")
    sides = {dim for dim in (dims[2], dims[3] if layout == "nchw" else dims[1]) if dim}
    sides |= {how.size} if how.size else set()
    if len(sides) != 1:
        advice = "give its --size" if not sides else "minicap's images are square, of one --size"
        raise UserError(f"{path}: {shown}: {advice}")
    return dims[0], layout, sides.pop()


def _output_shape(path: Path, model: "onnx.ModelProto", image: np.ndarray) -> tuple[int, ...]:
    """Run the network on a black image and return the shape of its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings concern the file's maker
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=False,
        )
        name = session.get_inputs()[0].name
        (output, *_) = session.run(None, {name: image})
    except Exception as error:  # ONNX Runtime's error classes have no common base
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: ONNX Runtime cannot run this network ({reason})") from error
    return output.shape
