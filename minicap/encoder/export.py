"""From published weights to an ONNX file: build, check, and quantise if asked."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tqdm import tqdm

from minicap.encoder import check, quantise
from minicap.encoder.graph import build, save
from minicap.encoder.photos import find_photos
from minicap.encoder.session import EXPORTED, Encoder, cache_folder
from minicap.encoder.weight_files import (
    KERAS_NOTOP,
    KERAS_NOTOP_MD5,
    KERAS_NOTOP_SIZE,
    read_weights,
)
from minicap.utils.downloads import fetch
from minicap.utils.errors import UnusableImage, UserError

if TYPE_CHECKING:
    import numpy
    import onnx

OFFICIAL = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"


@dataclass(frozen=True)
class ExportOptions:
    """Make InceptionV3's ONNX file from its published weights."""

    weights: Path | None = None
    """Keras' .h5, torchvision's .pth or timm's .safetensors [default: $MINICAP_INCEPTION_H5, else
    Keras' file without its top, which is downloaded once, 88 MB]"""
    out: Path | None = None
    """the file to write [default: inception_v3.onnx, or inception_v3-int8.onnx]"""
    preprocessing: Literal["squeeze-bilinear", "squeeze-nearest", "crop-bilinear"] = (
        "squeeze-bilinear"
    )
    """how a photo is made to fit: squeeze-bilinear is the best; squeeze-nearest is Keras' load_img;
    crop-bilinear is the course's"""
    precision: Literal["float32", "int8"] = "float32"
    """int8 is a quarter of the size, less exact, and quicker only on processors made for it (VNNI);
    it needs --calibrate"""
    calibrate: Path | None = None
    """photos such as will be encoded, for int8: a folder, a zip file, or a list"""
    min_cosine: float = 0.98
    """int8 is refused if a photo's features are less like the float32 ones than this"""
    check: tuple[Path, ...] = ()
    """photos on which the float32 network is compared with --expected, or else with Keras itself"""
    expected: Path | None = None
    """the features that the checked photos should have: an .npz file with `names`, `features`"""

    def validate(self) -> None:
        """Raise UserError, naming the option, for options that do not go together."""
        if (self.precision == "int8") != (self.calibrate is not None):
            raise UserError("--precision int8 and --calibrate PHOTOS belong together")
        if not 0 < self.min_cosine <= 1:
            raise UserError("--min-cosine must be more than 0 and at most 1")
        if self.expected and not self.check:
            raise UserError("--expected is for --check PHOTO...: name the photos")


def export(
    options: ExportOptions, expected: "Mapping[str, numpy.ndarray] | None" = None
) -> Path | None:
    """Make the ONNX file.

    Args:
        options: what to make, and how to check it.
        expected: features that the photos of `options.check` should have, by photo, or None to
            compare with Keras itself.

    Returns:
        Its path, or None if a check has failed and nothing is written.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting needs {error.name}, which is not installed: pip install -e '.[cpu]'"
        ) from error
    path = options.weights or official_weights()
    model = build(read_weights(path), options.preprocessing)
    with tempfile.TemporaryDirectory() as folder:
        float32 = Path(folder, "float32.onnx")
        save(model, float32)
        encoder = Encoder(float32)
        if options.check and not agrees(encoder, path, options, expected):
            return None
        if options.calibrate:
            model = int8(model, encoder, options, Path(folder))
    out = options.out or (EXPORTED if not options.calibrate else Path("inception_v3-int8.onnx"))
    save(model, out)
    return out


def description(path: Path) -> list[str]:
    """Lines about an ONNX file that `export` wrote."""
    import onnx

    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    keys = ("encoder_id", "weights", "preprocessing", "pooling", "precision")
    return [
        f"wrote          {path}, {path.stat().st_size / 1e6:.1f} MB",
        *(f"{key:14} {about[key]}" for key in keys if key in about),
    ]


def official_weights() -> Path:
    """The Keras file without its top: where MINICAP_INCEPTION_H5 says, else from the cache, else
    downloaded into it. Raises UserError as `fetch` does."""
    if "MINICAP_INCEPTION_H5" in os.environ:
        return Path(os.environ["MINICAP_INCEPTION_H5"])
    path = cache_folder() / KERAS_NOTOP
    if not path.exists():
        print(f"fetching InceptionV3's weights, {KERAS_NOTOP_SIZE / 1e6:.0f} MB, to {path}")
    url, checksum = OFFICIAL + KERAS_NOTOP, f"md5:{KERAS_NOTOP_MD5}"
    return fetch(url, path, checksum, KERAS_NOTOP_SIZE, "InceptionV3's weights")


def agrees(
    encoder: Encoder,
    weights: Path,
    options: ExportOptions,
    expected: "Mapping[str, numpy.ndarray] | None",
) -> bool:
    """Compare the checked photos' features with those expected, print each, and whether all are
    the same within check.TOLERANCE."""
    if expected is not None:
        source = str(options.expected)
    elif weights.read_bytes()[:4] != b"\x89HDF":
        raise UserError(
            f"{weights}: without --expected features.npz only Keras' .h5 weights can be checked, "
            "against Keras"
        )
    else:
        expected = check.keras_features(weights, encoder, options.check)
        source = "Keras"
    good = 0
    for photo, difference in check.differences(encoder, options.check, expected):
        good += difference <= check.TOLERANCE
        print(f"{difference:.1e}  {photo}", flush=True)
    bad = len(options.check) - good
    limit = f"{check.TOLERANCE:g}"
    print(f"relative difference to {source}: {good} photos within {limit}, {bad} beyond")
    if bad and options.expected and encoder.preprocessing != "squeeze-nearest-299":
        print("(features that Keras' load_img prepared need --preprocessing squeeze-nearest)")
    return not bad


def int8(
    model: "onnx.ModelProto", encoder: Encoder, options: ExportOptions, folder: Path
) -> "onnx.ModelProto":
    """The model in int8, after it was compared with the float32 encoder on photos held out. Workspace
    files go into `folder`. UserError: too few photos, or features too far from float32's."""
    assert options.calibrate
    photos = find_photos(options.calibrate)

    def prepared(names: list[str]) -> "list[numpy.ndarray]":
        pictures = []
        for name in names:
            try:
                pictures.append(encoder.pixels(photos.open(name)))
            except UnusableImage as error:
                print(f"skipped        {error}")
        return pictures

    calibration, held_out = map(prepared, quantise.split(photos.names))
    if len(held_out) < 2 or len(calibration) + len(held_out) < quantise.FEWEST:
        raise UserError(
            f"{options.calibrate}: {len(calibration) + len(held_out)} photos are too few; int8 "
            f"needs {quantise.FEWEST} or more that can be read, and 100 of all kinds are better"
        )
    bar = tqdm(calibration, desc="calibrating", unit=" photos")
    found = quantise.quantise(model, bar)
    save(found, folder / "int8.onnx")
    fidelity = quantise.compare(encoder, Encoder(folder / "int8.onnx"), held_out)
    print(
        f"int8           calibrated on {len(calibration)} photos; on {len(held_out)} others: "
        f"cosine to float32 {fidelity.minimum:.4f} or more, median {fidelity.median:.4f} "
        f"(two different photos: {fidelity.apart:.4f}); {fidelity.speed:.2f} times as quick here"
    )
    if fidelity.minimum < options.min_cosine:
        raise UserError(
            f"int8 strays too far from float32: cosine {fidelity.minimum:.4f} is less than "
            f"--min-cosine {options.min_cosine:g}; nothing is written; calibrate on more photos, "
            "such as will be encoded, or use float32"
        )
    return found
