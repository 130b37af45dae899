"""Photos in, features out: an ONNX file run by ONNX Runtime."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from minicap.encoder.image import load_image, prepare, preprocessing_name
from minicap.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# The id of what `seeded_encoder` builds: a model trained on its features names it by this.
SEEDED_ENCODER_ID = "ba7c77f83f75fed6faef65b04cb6677d7a1c4ec592682f5cbf996e34bbe4c2c8"
BATCH_SIZE = 32


class UnusableEncoder(UserError):
    """A file that is no image encoder, or a damaged one."""


class Encoder:
    """An ONNX file with one image input and one feature output, ready to encode pictures.

    The input is uint8 (N, size, size, 3), RGB; the output float32 (N, feature_size).

    id: SHA-256 in hex of what it computes: graph, weights, preprocessing (`graph.encoder_id`).
    name: the weights' name in the file's metadata, else the file's name.
    preprocessing: name of how a picture becomes pixels (`image.preprocessing_name`).
    size, feature_size: side of the input in pixels, numbers per picture.
    """

    def __init__(self, path: str | Path, device: str = "cpu", threads: int | None = None) -> None:
        """Load the file for `device` ("cpu" or "cuda"); threads: None leaves it to ONNX Runtime.

        Raises UserError: no onnxruntime, no such file, a broken one, one that is no image encoder,
        a device that cannot be had.
        """
        onnxruntime = _onnxruntime()
        import onnx

        from minicap.encoder.graph import encoder_id

        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such encoder file; name an ONNX file")
        self._session = _session(onnxruntime, path, device, threads)
        self._input, self._batch, self.size, self.feature_size = _signature(self._session, path)

        model = onnx.load(path)
        about = {entry.key: entry.value for entry in model.metadata_props}
        self.name = about.get("weights", path.stem)
        self.preprocessing = preprocessing_name(self.size)
        wanted = about.get("preprocessing", self.preprocessing)
        if wanted != self.preprocessing:
            raise UnusableEncoder(
                f"{path}: needs the preprocessing {wanted}, this minicap has {self.preprocessing}; "
                "export the encoder again"
            )
        self.id = encoder_id(model, self.preprocessing)

    def about(self) -> dict:
        """What features and models remember of their encoder. JSON."""
        names = ("id", "name", "preprocessing", "feature_size")
        return {name: getattr(self, name) for name in names}

    def __call__(self, pictures: "Sequence[str | Path | Image.Image | np.ndarray]") -> np.ndarray:
        """Files, Pillow images or uint8 arrays (height, width, 3) -> float32 (N, feature_size).

        Raises UnusableImage for the first picture that cannot be read.
        """
        features = np.empty((len(pictures), self.feature_size), np.float32)
        step = self._batch or BATCH_SIZE
        for start in range(0, len(pictures), step):
            pixels = np.stack([self.pixels(p) for p in pictures[start : start + step]])
            features[start : start + step] = self.encode(pixels)
        return features

    def pixels(self, picture: "str | Path | Image.Image | np.ndarray") -> np.ndarray:
        """One picture, prepared: uint8 (size, size, 3)."""
        if isinstance(picture, np.ndarray):
            from PIL import Image

            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
            picture = Image.fromarray(picture)
        return prepare(load_image(picture), self.size)

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """One batch of prepared pictures, uint8 (n, size, size, 3) -> float32 (n, feature_size)."""
        count = len(pixels)
        if self._batch:  # the file wants just so many: fill up with black ones, drop their features
            pixels = np.pad(pixels, [(0, self._batch - count), (0, 0), (0, 0), (0, 0)])
        (features,) = self._session.run(None, {self._input: pixels})
        return features[:count]


def _onnxruntime() -> ModuleType:
    """onnxruntime, if it and onnx are there; warns where two builds of it overwrite each other."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"encoding pictures needs {error.name}, which is not installed: "
            "pip install 'minicap[cpu]' (or 'minicap[gpu]')"
        ) from error
    if all(_installed(name) for name in ("onnxruntime", "onnxruntime-gpu")):
        warnings.warn(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall both, then install the one you want",
            stacklevel=3,
        )
    return onnxruntime


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _session(onnxruntime: ModuleType, path: Path, device: str, threads: int | None) -> Any:
    """An inference session that runs on the device that was asked for, or a UserError."""
    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    if device not in providers:
        raise UserError(f"device {device!r}: choose cpu or cuda")
    provider = providers[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device}: this onnxruntime is built without it: "
            "pip uninstall onnxruntime, then pip install 'minicap[gpu]'"
        )
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    if device == "cuda":
        onnxruntime.preload_dlls()  # the CUDA libraries that pip installed, where the loader looks
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # ONNX Runtime has a dozen classes, with no base but Exception
        reason = " ".join(str(error).split())[:200]
        if device == "cuda":
            raise UserError(f"{path}: cannot be opened for cuda ({reason})") from error
        raise UnusableEncoder(f"{path}: no usable ONNX file ({reason}); export it again") from error
    if provider not in session.get_providers():  # ONNX Runtime falls back to the CPU in silence
        raise UserError(
            f"device {device}: ONNX Runtime fell back to {session.get_providers()[0]}; "
            "check the driver (nvidia-smi) and the CUDA and cuDNN libraries, or use --device cpu"
        )
    return session


def _signature(session: Any, path: Path) -> tuple[str, int | None, int, int]:
    """Input name, batch size (None: any), image side and feature size of an image encoder."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    match [(value.type, value.shape) for value in (*inputs, *outputs)]:
        case [("tensor(uint8)", [batch, int(h), int(w), 3]), ("tensor(float)", [_, int(size)])] if (
            h == w and len(inputs) == 1
        ):
            return inputs[0].name, batch if isinstance(batch, int) else None, h, size

    def listed(values: Any) -> str:
        return ", ".join(f"{v.name} {v.type} {v.shape}" for v in values)

    raise UnusableEncoder(
        f"{path}: has inputs {listed(inputs)} and outputs {listed(outputs)}; an encoder has one "
        "input tensor(uint8) [N, size, size, 3] and one output tensor(float) [N, features]"
    )


def cache_folder() -> Path:
    """Where built encoders are kept: $MINICAP_CACHE, else `minicap` in the user's cache folder."""
    if "MINICAP_CACHE" in os.environ:
        return Path(os.environ["MINICAP_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "minicap"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/minicap"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minicap"


def seeded_encoder(device: str = "cpu", threads: int | None = None) -> Encoder:
    """InceptionV3 with the seeded weights; built on first use (seconds, 88 MB) and kept.

    A damaged file, or one of another version, is built again. Raises UserError as Encoder does,
    and where the cache folder cannot be written.
    """
    _onnxruntime()
    path = cache_folder() / f"inception_v3-seeded-{SEEDED_ENCODER_ID[:12]}.onnx"
    if path.exists():
        try:
            encoder = Encoder(path, device, threads)
            if encoder.id == SEEDED_ENCODER_ID:
                return encoder
        except UnusableEncoder:
            pass
        print(f"minicap: {path} is damaged", file=sys.stderr)
    print(f"minicap: building the seeded encoder once, {path}", file=sys.stderr)

    from minicap.encoder.graph import build, save
    from minicap.encoder.weights import seeded_weights

    save(build(seeded_weights()), path)
    encoder = Encoder(path, device, threads)
    if encoder.id != SEEDED_ENCODER_ID:
        raise UserError(
            f"{path}: this machine builds another seeded encoder ({encoder.id[:12]} instead of "
            f"{SEEDED_ENCODER_ID[:12]}); reinstall minicap and numpy"
        )
    return encoder
