"""Compute features of images with an ONNX file run by ONNX Runtime."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from minicap.backend import Array, device_module, to_device
from minicap.encoder.graph import MAP
from minicap.encoder.image import (
    MAX_PIXELS,
    NO_END,
    PREPROCESSINGS,
    draft_side,
    load_image,
    prepare,
    preprocessing_name,
)
from minicap.utils.errors import UserError
from minicap.utils.ranks import world

if TYPE_CHECKING:
    from PIL import Image

# The id of `seeded_encoder`, stored in models trained on its features.
SEEDED_ENCODER_ID = "8484284deed626ac6504a94e7dd10e0f1fd0bfc1ca4411efa3a82c1959361bf6"
# The id of `pretrained_encoder`.
PRETRAINED_ENCODER_ID = "8db0d75a980d6817a9d5f52a56236f3f76060365a882c709c458b7855222af3d"
PRETRAINED_SIZE = 224  # pixels
PRETRAINED = "pretrained"  # names that encoder on command lines
EXPORTED = Path("inception_v3.onnx")  # the default output of `minicap export`
BATCH = {"cpu": 4, "cuda": 64}  # images at once; on a CPU, larger batches are not faster


class UnusableEncoder(UserError):
    """The file is damaged or is not an image encoder."""


class Encoder:
    """An image encoder: an ONNX file with one image input and one feature output.

    The input is uint8 (N, size, size, 3), RGB. The output is float32 (N, feature_size).

    Attributes:
        id: SHA-256, in hex, of graph, weights and preprocessing (`graph.encoder_id`).
        name: the weights' name in the file's metadata, else the file's name.
        preprocessing: name of the preprocessing (`image.preprocessing_name`).
        size: height and width of the input in pixels.
        feature_size: number of features of an image.
        batch: number of images to encode at once.
        float32_id: id of the float32 encoder from which a quantised one was made, else None.
        positions: if the features are those of several positions (`maps`), their number, else None.
        repaired: the photos read so far whose JPEG end marker is missing.

    Example:
        >>> encoder = Encoder("inception_v3.onnx")
        >>> encoder(["photo.jpg"]).shape
        (1, 2048)
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        threads: int | None = None,
        preprocessing: str | None = None,
    ) -> None:
        """Load an encoder.

        Args:
            path: the ONNX file.
            device: "cpu" or "cuda".
            threads: threads within each operator; None leaves the choice to ONNX Runtime.
            preprocessing: one of `image.PREPROCESSINGS`, for a file whose metadata name none; by
                default the first of them.

        Raises:
            UnusableEncoder: the file is damaged or is not an image encoder.
            UserError: onnxruntime, the file or the device is missing, or the file was exported for
                another preprocessing.
        """
        onnxruntime = _onnxruntime()
        import onnx

        from minicap.encoder.graph import encoder_id

        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such encoder file; create one with `minicap export`")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        self._session = _session(onnxruntime, path, content, device, threads)
        self._xp = device_module(device)
        self.repaired: list[str] = []
        self._input, batch, self.size, self.feature_size = _signature(self._session, path)
        self._output = self._session.get_outputs()[0].name
        self.batch = batch or BATCH[device]
        # On a GPU all batches have the same size: cuDNN searches for algorithms for each new size.
        self._fixed = batch is not None or device == "cuda"

        try:
            model = onnx.load_model_from_string(content)
        except Exception as error:  # stricter than ONNX Runtime's own parser
            raise UnusableEncoder(f"{path}: damaged ({error}); export it again") from error
        about = {entry.key: entry.value for entry in model.metadata_props}
        self.name = about.get("weights", path.stem)
        self.float32_id = about.get("float32_encoder_id")
        self.positions = int(about["positions"]) if "positions" in about else None
        requested = preprocessing and preprocessing_name(preprocessing, self.size)
        usual = preprocessing_name(PREPROCESSINGS[0], self.size)
        self.preprocessing: str = about.get("preprocessing") or requested or usual
        if requested not in (None, self.preprocessing):
            raise UserError(
                f"{path}: exported for the preprocessing {self.preprocessing}, not {requested}; "
                f"export it with --preprocessing {preprocessing}"
            )
        self._method = self.preprocessing.removesuffix(f"-{self.size}")
        if self._method not in PREPROCESSINGS:
            known = ", ".join(preprocessing_name(method, self.size) for method in PREPROCESSINGS)
            raise UnusableEncoder(
                f"{path}: needs the preprocessing {self.preprocessing}, this minicap has "
                f"{known}; export the encoder again"
            )
        self.id = encoder_id(model, self.preprocessing)

    def about(self) -> dict:
        """Describe the encoder as JSON-compatible data, stored with features and models."""
        names = ("id", "name", "preprocessing", "feature_size", "float32_id", "positions")
        about = {name: getattr(self, name) for name in names}
        return {name: value for name, value in about.items() if value is not None}

    def __call__(self, images: "Sequence[str | Path | Image.Image | np.ndarray]") -> Array:
        """Compute the features of images.

        Args:
            images: N paths, Pillow images or uint8 arrays (height, width, 3), RGB.

        Returns:
            float32 (N, feature_size), on the device.

        Raises:
            UnusableImage: the first image that cannot be read.
        """
        features = self._xp.empty((len(images), self.feature_size), np.float32)
        for start in range(0, len(images), self.batch):
            rows = slice(start, start + self.batch)
            features[rows] = self.encode(np.stack([self.pixels(image) for image in images[rows]]))
        return features

    def pixels(
        self,
        image: "str | Path | IO[bytes] | Image.Image | np.ndarray",
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray:
        """Prepare one image.

        Args:
            image: a path, file object, Pillow image or uint8 array (height, width, 3), RGB.
            max_pixels: a larger image is refused.

        Returns:
            uint8 (size, size, 3).

        Raises:
            UnusableImage: the image cannot be read.
            ValueError: an array of another shape or dtype.
        """
        if isinstance(image, np.ndarray):
            from PIL import Image

            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f"image must be uint8 (height, width, 3), not {image.dtype} {image.shape}"
                )
            return prepare(Image.fromarray(image), self._method, self.size)
        loaded = load_image(image, draft_side(self._method, self.size), max_pixels)
        if loaded.info.get(NO_END):
            self.repaired.append(str(getattr(image, "name", image)))
        return prepare(loaded, self._method, self.size)

    def encode(self, pixels: np.ndarray) -> Array:
        """Compute the features of one batch of prepared images.

        Args:
            pixels: uint8 (n, size, size, 3). n is at most `batch` on CUDA or if the file has a
                fixed batch size; otherwise it is arbitrary.

        Returns:
            float32 (n, feature_size), on the device: with CUDA they never leave it.
        """
        count = len(pixels)
        if self._fixed:  # pad with black images and drop their features
            pixels = np.pad(pixels, [(0, self.batch - count), (0, 0), (0, 0), (0, 0)])
        if self._xp is np:
            (features,) = self._session.run([self._output], {self._input: pixels})
        else:
            features = self._xp.empty((len(pixels), self.feature_size), np.float32)
            self._run_on_device(to_device(pixels, self._xp), features)
        return features[:count]

    def _run_on_device(self, pixels: Array, features: Array) -> None:
        """Run the session from one array in GPU memory to another."""
        binding = self._session.io_binding()
        for bind, name, array in (
            (binding.bind_input, self._input, pixels),
            (binding.bind_output, self._output, features),
        ):
            kind = np.dtype(array.dtype.name).type
            bind(name, "cuda", array.device.id, kind, array.shape, array.data.ptr)
        self._xp.cuda.get_current_stream().synchronize()  # ONNX Runtime uses its own stream
        self._session.run_with_iobinding(binding)


def _onnxruntime() -> ModuleType:
    """Import onnxruntime, and warn if two builds of it overwrite each other."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"encoding images needs {error.name}, which is not installed: "
            "pip install -e '.[cpu]' (or '.[gpu]')"
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


def _session(
    onnxruntime: ModuleType, path: Path, content: bytes, device: str, threads: int | None
) -> Any:
    """Create an inference session that runs the content of `path` on this device."""
    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    if device not in providers:
        raise UserError(f"device {device!r}: choose cpu or cuda")
    provider = providers[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device}: the installed onnxruntime does not support it: "
            "pip uninstall onnxruntime, then pip install -e '.[gpu]'"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: they are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    chosen: str | tuple[str, dict] = provider
    if device == "cuda":
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
        if world().size > 1:  # each rank has a GPU of its own
            chosen = provider, {"device_id": device_module(device).cuda.Device().id}
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[chosen], enable_fallback=False
        )
    except Exception as error:  # ONNX Runtime's error classes have no common base
        reason = " ".join(str(error).split())[:200]
        if device == "cuda":
            raise UserError(f"{path}: cannot be opened on cuda ({reason})") from error
        raise UnusableEncoder(
            f"{path}: not a usable ONNX file ({reason}); export it again"
        ) from error
    if provider not in session.get_providers():  # ONNX Runtime falls back to the CPU silently
        raise UserError(
            f"device {device}: ONNX Runtime fell back to {session.get_providers()[0]}; "
            "check the driver (nvidia-smi) and the CUDA and cuDNN libraries, or use --device cpu"
        )
    return session


def _signature(session: Any, path: Path) -> tuple[str, int | None, int, int]:
    """Return an encoder's input name, batch size (None: any), image size and feature size."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    outputs = outputs[:1] + [value for value in outputs[1:] if value.name != MAP]
    match [(value.type, value.shape) for value in (*inputs, *outputs)]:
        case [("tensor(uint8)", [batch, int(h), int(w), 3]), ("tensor(float)", [_, int(size)])] if (
            h == w and len(inputs) == 1
        ):
            return inputs[0].name, batch if isinstance(batch, int) else None, h, size

    def describe(values: Any) -> str:
        return ", ".join(f"{v.name} {v.type} {v.shape}" for v in values)

    raise UnusableEncoder(
        f"{path}: not an encoder: it has the inputs {describe(inputs)} and the outputs "
        f"{describe(outputs)}; an encoder has one input tensor(uint8) [N, size, size, 3] and one "
        "output tensor(float) [N, features], and perhaps a second one called map"
    )


def cache_folder() -> Path:
    """Return the cache folder: $MINICAP_CACHE, else `minicap` in the user's cache folder."""
    if "MINICAP_CACHE" in os.environ:
        return Path(os.environ["MINICAP_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "minicap"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/minicap"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minicap"


def seeded_encoder(device: str = "cpu", threads: int | None = None) -> Encoder:
    """Load InceptionV3 with the seeded random weights.

    It is built on first use (a few seconds, 88 MB) and cached. A damaged file is built again.

    Args:
        device: "cpu" or "cuda".
        threads: as for `Encoder`.

    Returns:
        The encoder, whose id is SEEDED_ENCODER_ID.

    Raises:
        UserError: as for `Encoder`, or the cache folder cannot be written.
    """

    def build() -> Any:
        from minicap.encoder import graph
        from minicap.encoder.weights import seeded_weights

        return graph.build(seeded_weights())

    return _cached("inception_v3-seeded", SEEDED_ENCODER_ID, build, device, threads)


def pretrained_encoder(device: str = "cpu", threads: int | None = None) -> Encoder:
    """Load EfficientNet-Lite2 with the published weights, the encoder of the pretrained model.

    It is built on first use (a second, 20 MB) and cached. A damaged file is built again.

    Args:
        device: "cpu" or "cuda".
        threads: as for `Encoder`.

    Returns:
        The encoder, whose id is PRETRAINED_ENCODER_ID.

    Raises:
        UserError: as for `seeded_encoder`, or the weights' package is not installed.
    """

    def build() -> Any:
        from minicap.encoder.efficientnet import published

        return published(PRETRAINED_SIZE, "squeeze-bilinear")

    return _cached("efficientnet_lite2", PRETRAINED_ENCODER_ID, build, device, threads)


def encoder_file(path: Path) -> Path:
    """Return the ONNX file of the encoder that a command line names (see `open_encoder`)."""
    if str(path) != PRETRAINED or path.exists():
        return path
    pretrained_encoder()
    return _cache_file("efficientnet_lite2", PRETRAINED_ENCODER_ID)


def open_encoder(
    path: Path,
    device: str = "cpu",
    threads: int | None = None,
    preprocessing: str | None = None,
) -> Encoder:
    """Load the encoder that a command line names: an ONNX file, or "pretrained".

    Args:
        path: the ONNX file or `Path("pretrained")`.
        device, threads, preprocessing: as for `Encoder`.
    """
    if str(path) == PRETRAINED and not path.exists():
        return pretrained_encoder(device, threads)
    return Encoder(path, device, threads, preprocessing)


def _cache_file(name: str, encoder_id: str) -> Path:
    return cache_folder() / f"{name}-{encoder_id[:12]}.onnx"


def _cached(
    name: str, encoder_id: str, build: Callable[[], Any], device: str, threads: int | None
) -> Encoder:
    """Load an encoder from the cache, or build it and store it there."""
    _onnxruntime()
    path = _cache_file(name, encoder_id)
    if path.exists():
        try:
            encoder = Encoder(path, device, threads)
            if encoder.id == encoder_id:
                return encoder
        except UnusableEncoder:
            pass
        print(f"minicap: {path} is damaged", file=sys.stderr)
    print(f"minicap: building the encoder {name} (once): {path}", file=sys.stderr)

    from minicap.encoder.graph import save

    save(build(), path)
    encoder = Encoder(path, device, threads)
    if encoder.id != encoder_id:
        raise UserError(
            f"{path}: this machine builds a different encoder ({encoder.id[:12]} instead of "
            f"{encoder_id[:12]}); reinstall minicap and numpy"
        )
    return encoder
