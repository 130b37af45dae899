"""Quantise a float32 encoder to int8, calibrated on photos, and measure the difference.

Static quantisation with ONNX Runtime (QDQ): each activation tensor gets a scale and a zero point
from its range on the calibration photos, and each filter of a kernel gets its own scale. Everything
from the first to the last convolution then runs on integers.

Activations are uint8 and weights are int8 with 7 bits (-64 to 64). With 8 bits, features would
depend on the processor: without VNNI, ONNX Runtime adds two products uint8 x int8 in 16 bits, and
255 x 127 x 2 overflows. 255 x 64 x 2 fits. (uint8 weights are also exact, and more precise, but
slower: VNNI multiplies uint8 by int8.)
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

MAX_CALIBRATION = 128  # photos; more change the ranges little and take longer
MAX_HELD_OUT = 32  # photos on which the result is evaluated
MIN_PHOTOS = 8  # calibration and held-out photos together
OPERATORS = ["Conv", "Relu", "MaxPool", "AveragePool", "Concat"]  # all but the last average


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split photos into a calibration and a held-out set; every fourth photo is held out.

    Returns:
        At most MAX_CALIBRATION and MAX_HELD_OUT names, each set spread evenly over `names`.
    """

    def spread(names: Sequence[str], limit: int) -> list[str]:
        selected = np.linspace(0, len(names) - 1, min(limit, len(names))).round().astype(int)
        return [names[number] for number in selected]

    held_out = [name for number, name in enumerate(names) if number % 4 == 3]
    calibration = [name for number, name in enumerate(names) if number % 4 != 3]
    return spread(calibration, MAX_CALIBRATION), spread(held_out, MAX_HELD_OUT)


def quantise(model: "onnx.ModelProto", images: Iterable[np.ndarray]) -> "onnx.ModelProto":
    """Quantise a float32 encoder to int8.

    Args:
        model: as `graph.build` returns it.
        images: calibration images, prepared, uint8 (size, size, 3), used one at a time.

    Returns:
        The int8 model. Its metadata are those of `model` with the new encoder id, and with
        `precision` and `float32_encoder_id` added.

    Raises:
        UserError: temporary files cannot be written.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    (model_input,) = model.graph.input

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {model_input.name: image[None]}

    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)  # ONNX Runtime's preprocessing has nothing left to fold
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
            quantised = onnx.load(target)
    except OSError as error:
        raise UserError(
            f"int8: cannot write temporary files in {tempfile.gettempdir()} "
            f"({error.strerror or error}); set TMPDIR to a folder with 1 GB free"
        ) from error
    about = {entry.key: entry.value for entry in model.metadata_props}
    about["float32_encoder_id"] = about["encoder_id"]
    about["precision"] = "int8: activations uint8, weights int8 of 7 bits, per channel"
    about["encoder_id"] = encoder_id(quantised, about["preprocessing"])
    onnx.helper.set_model_props(quantised, about)
    return quantised


class Fidelity(NamedTuple):
    """Comparison of an int8 encoder with its float32 original on held-out photos.

    Attributes:
        minimum: lowest cosine similarity of a photo's int8 and float32 features.
        median: median of these cosines.
        between_photos: median cosine of the float32 features of two different photos, for scale.
        speed: photos per second as a multiple of the float32 encoder's, on this machine.
    """

    minimum: float
    median: float
    between_photos: float
    speed: float


def compare(float32: Encoder, int8: Encoder, images: Sequence[np.ndarray]) -> Fidelity:
    """Compare both encoders on the same images, one at a time and in turns.

    Args:
        float32: the original encoder.
        int8: the quantised encoder.
        images: two or more prepared images, uint8 (size, size, 3).

    Returns:
        Cosine similarities and the relative speed.
    """
    encoders: tuple[Any, ...] = (float32, int8)
    features: tuple[list[np.ndarray], ...] = ([], [])
    seconds: tuple[list[float], ...] = ([], [])
    for encoder in encoders:
        encoder.encode(images[0][None])  # warm-up: the first run is slow
    for image in images:
        for encoder, rows, times in zip(encoders, features, seconds, strict=True):
            start = time.perf_counter()
            rows.append(encoder.encode(image[None])[0])
            times.append(time.perf_counter() - start)
    a, b = (np.stack(rows).astype(np.float64) for rows in features)
    same = cosines(a, b)
    different = cosines(a, np.roll(a, 1, axis=0))
    speed = np.median(seconds[0]) / np.median(seconds[1])
    return Fidelity(
        float(same.min()), float(np.median(same)), float(np.median(different)), float(speed)
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the cosine similarity (n,) of the rows of a and b (n, features).

    It is 0 where a row is zero or not finite.
    """
    with np.errstate(all="ignore"):
        similarity = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.nan_to_num(similarity)
