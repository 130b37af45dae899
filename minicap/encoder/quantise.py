"""A float32 encoder -> one that computes in 8 bits, calibrated on photos, and how far it strays.

Static quantisation by ONNX Runtime (QDQ): each tensor between two layers gets a scale and a zero
point from the range that it takes on the calibration photos, each filter of a kernel its own scale.
From the first convolution to the last, everything then runs on integers.

Activations are uint8; weights are int8 of 7 bits (-64 to 64). Not 8: on a processor without VNNI,
ONNX Runtime adds two products uint8 x int8 in 16 bits, and 255 x 127 x 2 does not fit, so that the
same file would give other features on another machine. 255 x 64 x 2 fits. (Weights of uint8 are
exact too, and more precise, but slower, and what VNNI multiplies is uint8 by int8.)
"""

import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minicap.encoder.graph import encoder_id, save
from minicap.encoder.session import Encoder
from minicap.utils.errors import UserError

if TYPE_CHECKING:
    import onnx

CALIBRATION = 128  # photos, at most: more change the ranges little and take longer
HELD_OUT = 32  # photos, at most, on which the result is judged
FEWEST = 8  # photos, of both together
OPERATORS = ["Conv", "Relu", "MaxPool", "AveragePool", "Concat"]  # all but the last average


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Photos to calibrate on and photos to judge by, each spread evenly over `names`: every fourth
    is held out."""

    def spread(some: Sequence[str], most: int) -> list[str]:
        picked = np.linspace(0, len(some) - 1, min(most, len(some))).round().astype(int)
        return [some[number] for number in picked]

    held_out = [name for number, name in enumerate(names) if number % 4 == 3]
    others = [name for number, name in enumerate(names) if number % 4 != 3]
    return spread(others, CALIBRATION), spread(held_out, HELD_OUT)


def quantise(model: "onnx.ModelProto", pictures: Iterable[np.ndarray]) -> "onnx.ModelProto":
    """The int8 form of a float32 encoder as `graph.build` makes it.

    pictures: uint8 (size, size, 3), prepared, taken one at a time. The metadata are the model's,
    with the new encoder's id, and `precision` and `float32_encoder_id` added. UserError: no room
    for scratch files.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    (image,) = model.graph.input

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.pictures = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.pictures, None)
            return None if picture is None else {image.name: picture[None]}

    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)  # it needs none of the usual preparation: nothing is left to fold
    prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
            save(prepared, source)
            quantize_static(
                source,
                target,
                Reader(),
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            found = onnx.load(target)
    except OSError as error:
        raise UserError(
            f"int8: cannot write scratch files in {tempfile.gettempdir()} "
            f"({error.strerror or error}); set TMPDIR to a folder with 1 GB left"
        ) from error
    about = {entry.key: entry.value for entry in model.metadata_props}
    about["float32_encoder_id"] = about["encoder_id"]
    about["precision"] = "int8: activations uint8, weights int8 of 7 bits, per channel"
    about["encoder_id"] = encoder_id(found, about["preprocessing"])
    onnx.helper.set_model_props(found, about)
    return found


class Fidelity(NamedTuple):
    """How an int8 encoder compares with the float32 one, on photos that it was not calibrated on.

    minimum, median: cosines of the two features of a photo. apart: the median cosine of the float32
    features of two different photos, which says how much those are worth. speed: photos per second,
    as a multiple of the float32 encoder's, here and now.
    """

    minimum: float
    median: float
    apart: float
    speed: float


def compare(float32: Encoder, int8: Encoder, pictures: Sequence[np.ndarray]) -> Fidelity:
    """Both encoders on the same two or more prepared pictures, one at a time and in turns."""
    encoders: tuple[Any, ...] = (float32, int8)
    features: tuple[list[np.ndarray], ...] = ([], [])
    seconds: tuple[list[float], ...] = ([], [])
    for encoder in encoders:
        encoder.encode(pictures[0][None])  # the first one is slow
    for picture in pictures:
        for encoder, rows, times in zip(encoders, features, seconds, strict=True):
            start = time.perf_counter()
            rows.append(encoder.encode(picture[None])[0])
            times.append(time.perf_counter() - start)
    a, b = (np.stack(rows).astype(np.float64) for rows in features)
    likeness = cosines(a, b)
    apart = cosines(a, np.roll(a, 1, axis=0))
    speed = np.median(seconds[0]) / np.median(seconds[1])
    return Fidelity(
        float(likeness.min()), float(np.median(likeness)), float(np.median(apart)), float(speed)
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of a and b (n, features): (n,). 0 where a row is zero or not finite."""
    with np.errstate(all="ignore"):
        found = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.nan_to_num(found)
