"""Photos in, features out: an ONNX file run by ONNX Runtime."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from minicap.backend import Array, device_module, to_device
from minicap.encoder.image import PREPROCESSINGS, prepare, preprocessing_name, read
from minicap.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

# The id of what `seeded_encoder` builds: a model trained on its features names it by this.
SEEDED_ENCODER_ID = "8484284deed626ac6504a94e7dd10e0f1fd0bfc1ca4411efa3a82c1959361bf6"
EXPORTED = Path("inception_v3.onnx")  # where `python -m minicap.export` puts it, unless told
BATCH = {"cpu": 4, "cuda": 64}  # pictures at once: on a CPU, more are not quicker


class UnusableEncoder(UserError):
    """A file that is no image encoder, or a damaged one."""


class Encoder:
    """An ONNX file with one image input and one feature output, ready to encode pictures.

    The input is uint8 (N, size, size, 3), RGB; the output float32 (N, feature_size).

    id: SHA-256 in hex of what it computes: graph, weights, preprocessing (`graph.encoder_id`).
    name: the weights' name in the file's metadata, else the file's name.
    preprocessing: name of how a picture becomes pixels (`image.preprocessing_name`).
    size, feature_size: side of the input in pixels, numbers per picture.
    batch: pictures that are best encoded at once.
    float32_id: of an encoder with less precise weights, the id of the one that it was made from.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        threads: int | None = None,
        preprocessing: str | None = None,
    ) -> None:
        """Load the file for `device` ("cpu" or "cuda").

        threads: for the network's products; None leaves it to ONNX Runtime. preprocessing: one of
        image.PREPROCESSINGS, for a file whose metadata name none (then None: the first of them).

        Raises UserError: no onnxruntime, no such file, a broken one, one that is no image encoder,
        a device that cannot be had, another preprocessing than the file was made for.
        """
        onnxruntime = _onnxruntime()
        import onnx

        from minicap.encoder.graph import encoder_id

        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: no such encoder file; make one with python -m minicap.export")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot read it ({error.strerror or error})") from error
        self._session = _session(onnxruntime, path, content, device, threads)
        self._xp = device_module(device)
        self._input, batch, self.size, self.feature_size = _signature(self._session, path)
        self.batch = batch or BATCH[device]
        # On a GPU every batch is as large: cuDNN looks for its best algorithms for each size anew.
        self._fixed = batch is not None or device == "cuda"

        model = onnx.load_model_from_string(content)
        about = {entry.key: entry.value for entry in model.metadata_props}
        self.name = about.get("weights", path.stem)
        self.float32_id = about.get("float32_encoder_id")
        asked = preprocessing and preprocessing_name(preprocessing, self.size)
        self.preprocessing = about.get("preprocessing") or asked
        if self.preprocessing is None:
            self.preprocessing = preprocessing_name(PREPROCESSINGS[0], self.size)
        if asked not in (None, self.preprocessing):
            raise UserError(
                f"{path}: was exported for the preprocessing {self.preprocessing}, not {asked}; "
                f"export it with --preprocessing {preprocessing}"
            )
        self._method = self.preprocessing.removesuffix(f"-{self.size}")
        if self._method not in PREPROCESSINGS:
            known = ", ".join(preprocessing_name(method, self.size) for method in PREPROCESSINGS)
            raise UnusableEncoder(
                f"{path}: needs the preprocessing {self.preprocessing}, this minicap has {known}; "
                "export the encoder again"
            )
        self.id = encoder_id(model, self.preprocessing)

    def about(self) -> dict:
        """What features and models remember of their encoder. JSON."""
        names = ("id", "name", "preprocessing", "feature_size", "float32_id")
        about = {name: getattr(self, name) for name in names}
        return {name: value for name, value in about.items() if value is not None}

    def __call__(self, pictures: "Sequence[str | Path | Image.Image | np.ndarray]") -> Array:
        """Files, Pillow images or uint8 arrays (height, width, 3) -> float32 (N, feature_size), on
        the device.

        Raises UnusableImage for the first picture that cannot be read.
        """
        features = self._xp.empty((len(pictures), self.feature_size), np.float32)
        for start in range(0, len(pictures), self.batch):
            some = slice(start, start + self.batch)
            features[some] = self.encode(np.stack([self.pixels(p) for p in pictures[some]]))
        return features

    def pixels(self, picture: "str | Path | IO[bytes] | Image.Image | np.ndarray") -> np.ndarray:
        """One picture, prepared: uint8 (size, size, 3)."""
        if isinstance(picture, np.ndarray):
            from PIL import Image

            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
            return prepare(Image.fromarray(picture), self._method, self.size)
        return read(picture, self._method, self.size)

    def encode(self, pixels: np.ndarray) -> Array:
        """One batch of prepared pictures, uint8 (n, size, size, 3) -> float32 (n, feature_size), on
        the device: with CUDA they never leave it. n is at most `batch`, or any where neither file
        nor device fixes it."""
        count = len(pixels)
        if self._fixed:  # fill up with black pictures, drop their features
            pixels = np.pad(pixels, [(0, self.batch - count), (0, 0), (0, 0), (0, 0)])
        if self._xp is np:
            (features,) = self._session.run(None, {self._input: pixels})
        else:
            features = self._xp.empty((len(pixels), self.feature_size), np.float32)
            self._run_on_device(to_device(pixels, self._xp), features)
        return features[:count]

    def _run_on_device(self, pixels: Array, features: Array) -> None:
        """The session from one array of the GPU's memory to another."""
        binding = self._session.io_binding()
        (output,) = self._session.get_outputs()
        for bind, name, array in (
            (binding.bind_input, self._input, pixels),
            (binding.bind_output, output.name, features),
        ):
            kind = np.dtype(array.dtype.name).type
            bind(name, "cuda", array.device.id, kind, array.shape, array.data.ptr)
        self._xp.cuda.get_current_stream().synchronize()  # ONNX Runtime has a stream of its own
        self._session.run_with_iobinding(binding)


def _onnxruntime() -> ModuleType:
    """onnxruntime, if it and onnx are there; warns where two builds of it overwrite each other."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f"encoding pictures needs {error.name}, which is not installed: "
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
    """An inference session that runs the content of `path` on this device, or a UserError."""
    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    if device not in providers:
        raise UserError(f"device {device!r}: choose cpu or cuda")
    provider = providers[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"device {device}: this onnxruntime is built without it: "
            "pip uninstall onnxruntime, then pip install -e '.[gpu]'"
        )
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    if device == "cuda":
        onnxruntime.preload_dlls()  # the CUDA libraries that pip installed, where the loader looks
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
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
