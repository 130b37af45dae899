"""Export an encoder to an ONNX file: InceptionV3 with published weights, or a network of your own.

The file is checked and optionally quantised before it is written.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from minicap.encoder import check, efficientnet, quantise
from minicap.encoder.graph import build, save
from minicap.encoder.image import Preprocessing
from minicap.encoder.photos import find_photos
from minicap.encoder.session import EXPORTED, PRETRAINED, PRETRAINED_SIZE, Encoder, cache_folder
from minicap.encoder.weight_files import (
    KERAS_NOTOP,
    KERAS_NOTOP_MD5,
    KERAS_NOTOP_SIZE,
    read_weights,
)
from minicap.encoder.wrap import Wrapping, wrap
from minicap.utils.downloads import fetch
from minicap.utils.errors import UnusableImage, UserError

if TYPE_CHECKING:
    import numpy
    import onnx

OFFICIAL_URL = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"


@dataclass(frozen=True)
class ExportOptions:
    """Export InceptionV3 with published weights, or wrap a network of your own, to an ONNX file."""

    weights: Path | None = None
    """Keras .h5, torchvision .pth or timm .safetensors file of InceptionV3, the .onnx file of
    another network, or `pretrained`: the pretrained model's EfficientNet-Lite2 [default:
    $MINICAP_INCEPTION_H5, else Keras' weights without the classifier, downloaded once, 88 MB]"""
    out: Path | None = None
    """output file [default: inception_v3.onnx, inception_v3-int8.onnx, NETWORK-encoder.onnx, or
    efficientnet_lite2.onnx]"""
    wrapping: Wrapping = Wrapping()
    preprocessing: Preprocessing = "squeeze-bilinear"
    """how photos are resized: squeeze-bilinear works best; squeeze-nearest matches Keras' load_img;
    crop-bilinear matches the original course notebook"""
    precision: Literal["float32", "int8"] = "float32"
    """int8 is a quarter of the size, less accurate, and faster only on processors with VNNI; it
    needs --calibrate"""
    calibrate: Path | None = None
    """calibration photos for int8, similar to those you will encode: a folder, zip file or list"""
    min_cosine: float = 0.98
    """lowest accepted cosine similarity between the int8 and float32 features of a photo"""
    check: tuple[Path, ...] = ()
    """photos on which to compare the float32 encoder with --expected, or with Keras by default"""
    expected: Path | None = None
    """reference features for --check: an .npz file with `names` and `features`"""

    def validate(self) -> None:
        """Raise UserError for options that contradict each other."""
        if (self.precision == "int8") != (self.calibrate is not None):
            raise UserError("--precision int8 and --calibrate PHOTOS need each other")
        if not 0 < self.min_cosine <= 1:
            raise UserError("--min-cosine must be more than 0 and at most 1")
        if not self.own and self.wrapping != Wrapping():
            raise UserError("--layout, --scale, --mean, --std and --size are for an .onnx file")
        if (self.own or self.published) and self.calibrate:
            raise UserError("--precision int8 is for InceptionV3")
        self.wrapping.check()
        if self.expected and not self.check:
            raise UserError("--expected needs --check PHOTO...: name the photos")
        if self.published and self.check and not self.expected:
            raise UserError("--check compares InceptionV3 with Keras; here it needs --expected")

    @property
    def own(self) -> bool:
        """Whether the weights are an ONNX file, to be wrapped."""
        return self.weights is not None and self.weights.suffix.lower() == ".onnx"

    @property
    def published(self) -> bool:
        """Whether the encoder is the pretrained model's."""
        return str(self.weights) == PRETRAINED and not Path(PRETRAINED).exists()

    @property
    def default_out(self) -> Path:
        """The output file if --out is not given."""
        if self.published:
            return Path("efficientnet_lite2.onnx")
        if self.weights and self.own:
            return Path(f"{self.weights.stem}-encoder.onnx")
        return Path("inception_v3-int8.onnx") if self.calibrate else EXPORTED


def export(
    options: ExportOptions, expected: "Mapping[str, numpy.ndarray] | None" = None
) -> Path | None:
    """Build the ONNX file, check it and write it.

    Args:
        options: what to build and how to check it.
        expected: reference features (feature_size,) of the photos in `options.check`, by path or
            file name; None compares with Keras itself.

    Returns:
        The file's path, or None if the check failed and no file was written.

    Raises:
        UserError: a missing package, unusable weights or photos, a failed download, or an int8
            encoder that differs too much from the float32 one.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting needs {error.name}, which is not installed: pip install -e '.[cpu]'"
        ) from error
    path = options.weights or official_weights()
    if options.published:
        model = efficientnet.published(PRETRAINED_SIZE, options.preprocessing)
    elif options.own:
        model = wrap(path, options.wrapping, options.preprocessing)
    else:
        model = build(read_weights(path), options.preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder, "float32.onnx")
        save(model, float32)
        encoder = Encoder(float32)
        if options.check and not _passes_check(encoder, path, options, expected):
            return None
        if options.calibrate:
            model = _int8_model(model, encoder, options, Path(folder))
    out = options.out or options.default_out
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"--out {out}: would replace the input; choose another file")
    save(model, out)
    return out


def description(path: Path) -> list[str]:
    """Describe an exported ONNX file in printable lines."""
    import onnx

    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    keys = ("encoder_id", "weights", "preprocessing", "pooling", "precision")
    return [
        f"file           {path}, {path.stat().st_size / 1e6:.1f} MB",
        *(f"{key:14} {about[key]}" for key in keys if key in about),
    ]


def official_weights() -> Path:
    """Locate Keras' weight file without the classifier, downloading it to the cache if necessary.

    Returns:
        $MINICAP_INCEPTION_H5 if it is set, else the cached file.

    Raises:
        UserError: the download failed.
    """
    if "MINICAP_INCEPTION_H5" in os.environ:
        return Path(os.environ["MINICAP_INCEPTION_H5"])
    path = cache_folder() / KERAS_NOTOP
    if not path.exists():
        print(f"downloading InceptionV3's weights, {KERAS_NOTOP_SIZE / 1e6:.0f} MB, to {path}")
    url, checksum = OFFICIAL_URL + KERAS_NOTOP, f"md5:{KERAS_NOTOP_MD5}"
    return fetch(url, path, checksum, KERAS_NOTOP_SIZE, "InceptionV3's weights")


def _passes_check(
    encoder: Encoder,
    weights: Path,
    options: ExportOptions,
    expected: "Mapping[str, numpy.ndarray] | None",
) -> bool:
    """Print each checked photo's relative error; return whether all are within check.TOLERANCE."""
    if expected is not None:
        source = str(options.expected)
    elif weights.read_bytes()[:4] != b"\x89HDF":
        raise UserError(
            f"{weights}: only Keras' .h5 weights can be checked against Keras; use "
            "--expected features.npz"
        )
    else:
        expected = check.keras_features(weights, encoder, options.check)
        source = "Keras"
    passed = 0
    for photo, difference in check.differences(encoder, options.check, expected):
        passed += difference <= check.TOLERANCE
        print(f"{difference:.1e}  {photo}", flush=True)
    failed = len(options.check) - passed
    limit = f"{check.TOLERANCE:g}"
    print(f"relative error against {source}: {passed} photos within {limit}, {failed} above")
    if failed and options.expected and encoder.preprocessing != "squeeze-nearest-299":
        print("(features computed with Keras' load_img need --preprocessing squeeze-nearest)")
    return not failed


def _int8_model(
    model: "onnx.ModelProto", encoder: Encoder, options: ExportOptions, folder: Path
) -> "onnx.ModelProto":
    """Quantise the model to int8 and compare it with float32 on held-out photos."""
    assert options.calibrate
    photos = find_photos(options.calibrate)

    def load(names: list[str]) -> "list[numpy.ndarray]":
        images = []
        for name in names:
            try:
                images.append(encoder.pixels(photos.open(name)))
            except UnusableImage as error:
                print(f"skipped        {error}")
        return images

    calibration, held_out = map(load, quantise.split(photos.names))
    count = len(calibration) + len(held_out)
    if len(held_out) < 2 or count < quantise.MIN_PHOTOS:
        raise UserError(
            f"{options.calibrate}: {count} readable photos are too few; int8 needs at least "
            f"{quantise.MIN_PHOTOS}, better 100 of all kinds"
        )
    bar = tqdm(calibration, desc="calibrating", unit=" photos")
    quantised = quantise.quantise(model, bar)
    save(quantised, folder / "int8.onnx")
    fidelity = quantise.compare(encoder, Encoder(folder / "int8.onnx"), held_out)
    print(
        f"int8           calibrated on {len(calibration)} photos; on {len(held_out)} held-out "
        f"photos: cosine to float32 at least {fidelity.minimum:.4f}, median {fidelity.median:.4f} "
        f"(two different photos: {fidelity.between_photos:.4f}); {fidelity.speed:.2f} times the "
        "float32 speed on this machine"
    )
    if fidelity.minimum < options.min_cosine:
        raise UserError(
            f"int8 differs too much from float32: cosine {fidelity.minimum:.4f} is less than "
            f"--min-cosine {options.min_cosine:g}; no file was written; calibrate on more photos "
            "like those you will encode, or use float32"
        )
    return quantised
