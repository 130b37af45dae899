"""Read published weight files: Keras' HDF5, torchvision's state dict, timm's safetensors.

The first bytes of a file, not its name, determine its type. All three contain the same 94
convolutions, but each library runs them a little differently:

- Pixels. All published networks take x / 127.5 - 1. torchvision documents a different input, scaled
  with ImageNet's mean and standard deviation, but its `transform_input`, which is on for pretrained
  weights, undoes that before the first convolution. Only timm's `gluon_in1k` was trained with
  ImageNet's mean and standard deviation; it is read like the others, which timm's authors found to
  work well too.
- The nine 3x3 average poolings. Keras averages over the real pixels; torchvision and timm count the
  padding as zeros (`F.avg_pool2d`'s default), timm even for weights from TensorFlow. We follow the
  library, to reproduce its features.
- Batch norm. Keras' has no gamma, torch's has one. Epsilon is 0.001 everywhere.

Auxiliary heads and the classifier are ignored. Pickles are loaded with `weights_only`, and an array
of the wrong shape is refused before it is read.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minicap.encoder.inception import Layer, layers
from minicap.encoder.weights import LayerWeights, Weights
from minicap.utils.errors import UserError

KERAS_NOTOP = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
KERAS_NOTOP_MD5 = "bcbd6486424b2319ff4ef7d526e38f63"
KERAS_NOTOP_SIZE = 87_910_968  # bytes

# By MD5, or by the start of the SHA-256, which is in the names of torchvision's files.
OFFICIAL = {
    f"md5:{KERAS_NOTOP_MD5}": "inception_v3 keras notop",
    "md5:9a0d58056eeedaa3f26cb7ebd46da564": "inception_v3 keras",
    "sha256:0cc3c7bd": "inception_v3 torchvision 0cc3c7bd",
    "sha256:1a9a5a14": "inception_v3 torchvision 1a9a5a14",
}
MAX_BYTES = 1 << 29  # five times the largest official file
BATCH_NORM = {"beta": "bias", "mean": "running_mean", "variance": "running_var", "gamma": "weight"}

# Reads an array, given its name in the file and the shape that it must have.
Read = Callable[[str, tuple[int, ...]], np.ndarray]


def read_weights(path: str | Path) -> Weights:
    """Read InceptionV3's weights from a file of one of the three types.

    Args:
        path: the file.

    Returns:
        The weights. Their name is that of the official file if the checksum matches, else the
        file's own.

    Raises:
        UserError: the file is missing, damaged, of an unknown type or of another network; an array
            is missing, has the wrong shape or invalid values; or h5py or torch is not installed.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
            if size > MAX_BYTES:
                raise UserError(f"{path}: has {size:,} bytes, too many for InceptionV3's weights")
            md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
            file.seek(0)
            while block := file.read(1 << 20):
                md5.update(block)
                sha256.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights ({error.strerror})") from error

    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        layer_weights = _read_keras(path)
    elif start.startswith((b"PK\x03\x04", b"\x80\x02")):
        layer_weights = _read_state_dict(path)
    elif start[8:9] == b"{":
        layer_weights = _read_safetensors(path)
    else:
        raise UserError(
            f"{path}: not a weight file; name a Keras .h5, a torchvision .pth or a .safetensors"
        )
    sums = (f"md5:{md5.hexdigest()}", f"sha256:{sha256.hexdigest()[:8]}")
    names = [OFFICIAL[s] for s in sums if s in OFFICIAL]
    count_include_pad = not start.startswith(b"\x89HDF")
    name = names[0] if names else path.stem
    return Weights(name, layer_weights, count_include_pad, sha256.hexdigest())


# ---- Keras ----------------------------------------------------------------------------------

KERAS_KINDS = {
    "kernel": "kernel",
    "beta": "beta",
    "gamma": "gamma",
    "moving_mean": "mean",
    "moving_variance": "variance",
}
KERAS_NAME = re.compile(
    r"(?:^|/)(conv2d|batch_normalization)(?:_(\d{1,9}))?"
    rf"/({'|'.join(KERAS_KINDS)}|bias)(?::0)?$"
)


def _read_keras(path: Path) -> list[LayerWeights]:
    """Read Keras' layers by their numbers.

    Keras numbers layers as they are created, which is the table's order. The first number depends
    on what the process built before. The file's own list is sorted by depth.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path}: reading Keras files needs h5py, which is not installed: pip install h5py"
        ) from error

    found: dict[str, dict[int, dict[str, str]]] = {"conv2d": {}, "batch_normalization": {}}
    others: list[str] = []

    def visit(name: str, node: Any) -> None:  # skips links, which may point out of the file
        match = KERAS_NAME.search(name)
        if not isinstance(node, h5py.Dataset):
            return
        if match:
            layer, number, kind = match.groups()
            if kind == "bias":
                raise UserError(f"{path}: {name}: a convolution of InceptionV3 has no bias")
            names = found[layer].setdefault(int(number or 0), {})
            if names.setdefault(KERAS_KINDS[kind], name) != name:
                raise UserError(f"{path}: {names[KERAS_KINDS[kind]]} and {name} are duplicates")
        elif len(others) < 3:
            others.append(name)

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # in a file with the whole model
            root.visititems(visit)
            if "layers/conv2d/vars" in root:
                raise UserError(
                    f"{path}: is in Keras 3's own layout, which does not keep the order of layers; "
                    f"use the official file, {KERAS_NOTOP}"
                )
            convs, norms = (_in_order(path, name, layers) for name, layers in found.items())
            if not convs or not norms:
                there = ", ".join(others) or "nothing"
                raise UserError(f"{path}: not Keras' InceptionV3; the file contains {there} ...")
            names = [{**conv, **norm} for conv, norm in zip(convs, norms, strict=True)]
            return _read_layers(
                path, names, lambda name, shape: _dataset(root[name], shape), hwio=True
            )
    except UserError:
        raise
    except Exception as error:  # h5py may raise anything for a damaged file
        raise UserError(f"{path}: {_damage(error)}") from error


def _in_order(path: Path, name: str, found: dict[int, dict[str, str]]) -> list[dict[str, str]]:
    """Sort the names of the layers' arrays by layer number; there must be 94 or none."""
    expected = len(list(layers()))
    if len(found) not in (0, expected):
        gap = next((n for n in range(min(found), max(found)) if n not in found), None)
        missing = "" if gap is None else f"; {name}_{gap} is missing"
        raise UserError(
            f"{path}: has {len(found)} layers {name}_..., InceptionV3 has {expected}{missing}"
        )
    return [found[number] for number in sorted(found)]


def _dataset(dataset: Any, shape: tuple[int, ...]) -> np.ndarray:
    _check_shape(dataset.shape or (), shape)
    if dataset.dtype.kind != "f":
        raise _InvalidArray(f"has the type {dataset.dtype}, not floating point")
    if dataset.chunks and np.prod(dataset.chunks) > 2 * np.prod(shape):
        raise _InvalidArray(f"is stored in chunks of {dataset.chunks}")  # each is read whole
    return dataset[()]


# ---- torchvision and timm -------------------------------------------------------------------

STEM = dict(zip("12356", ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"), strict=True))
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def torch_name(layer: Layer) -> str:
    """Convert a layer's name to torchvision's: mixed9/3x3/2/1x3 -> Mixed_7b.branch3x3_2a."""
    block, branch, *steps = layer.name.split("/")
    if block == "stem":
        return f"Conv2d_{STEM[branch]}"
    mixed = f"Mixed_{BLOCKS[int(block.removeprefix('mixed'))]}"
    if branch == "pool":
        return f"{mixed}.branch_pool"
    fork = {"1x3": "a", "3x1": "b"}
    return f"{mixed}.branch{branch}" + "".join(fork.get(s, f"_{s}") for s in steps)


def _torch_names() -> list[dict[str, str]]:
    names = []
    for layer in layers():
        name = torch_name(layer)
        norm = {kind: f"{name}.bn.{suffix}" for kind, suffix in BATCH_NORM.items()}
        names.append({"kernel": f"{name}.conv.weight", **norm})
    return names


def _read_state_dict(path: Path) -> list[LayerWeights]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: reading a .pth needs PyTorch, which is not installed: pip install torch; "
            "or use a Keras .h5 or a .safetensors file"
        ) from error
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                unpacked = sum(entry.file_size for entry in file.infolist())
            if unpacked > MAX_BYTES:
                raise ValueError(f"it unpacks to {unpacked:,} bytes")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch may raise anything for a damaged or hostile file
        raise UserError(f"{path}: {_damage(error)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: contains a {type(state).__name__}, not a state dict")

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            raise _InvalidArray(f"is a {type(tensor).__name__}, not a tensor")
        _check_shape(tuple(tensor.shape), shape)
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise _InvalidArray(f"has the type {tensor.dtype} {tensor.layout}, not floating point")
        return tensor.detach().double().numpy()

    return _read_layers(path, _torch_names(), read)


def _read_safetensors(path: Path) -> list[LayerWeights]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())

            def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
                if name not in names:
                    raise KeyError(name)
                view = file.get_slice(name)
                _check_shape(tuple(view.get_shape()), shape)
                if view.get_dtype() not in ("F64", "F32", "F16"):
                    raise _InvalidArray(f"has the type {view.get_dtype()}; save it as F32")
                return file.get_tensor(name)

            return _read_layers(path, _torch_names(), read)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: {_damage(error)}") from error


# ---- all types ------------------------------------------------------------------------------


class _InvalidArray(Exception):
    """The reason why an array cannot be used."""


def _read_layers(
    path: Path, names: Sequence[dict[str, str]], read: Read, hwio: bool = False
) -> list[LayerWeights]:
    """Read all layers' arrays and check them.

    `names` maps, for each layer, the kind of an array to its name in the file. Kernels are
    (filters, channels, height, width) in the file, or with `hwio`, as in Keras, (height, width,
    channels, filters). If there is a gamma, kernel and mean are multiplied by it in float64.
    """
    layer_weights = []
    for layer, named in zip(layers(), names, strict=True):
        filters, channels, height, width = layer.shape
        kernel_shape = (height, width, channels, filters) if hwio else layer.shape

        def array(kind: str, shape: tuple[int, ...], named: dict[str, str] = named) -> np.ndarray:
            name = named.get(kind, "")
            try:
                values = read(name, shape)
                if not np.isfinite(values).all():
                    raise _InvalidArray("has values that are not finite")
                if kind == "variance" and (values < 0).any():
                    raise _InvalidArray("has a negative variance")
            except KeyError:
                missing = name or f"{kind} next to {min(named.values())}"
                raise UserError(
                    f"{path}: has no {missing}: not the complete weights of an InceptionV3"
                ) from None
            except _InvalidArray as error:
                raise UserError(f"{path}: {name}: {error}") from None
            return values

        kernel = array("kernel", kernel_shape)
        beta, mean, variance = (array(kind, (filters,)) for kind in ("beta", "mean", "variance"))
        if hwio:
            kernel = kernel.transpose(3, 2, 0, 1)
        if "gamma" in named:
            gamma = array("gamma", (filters,)).astype(np.float64)
            kernel, mean = kernel * gamma[:, None, None, None], mean * gamma
        layer_weights.append(LayerWeights(kernel, beta, mean, variance))
    return layer_weights


def _check_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(shape) != expected:
        raise _InvalidArray(f"has the shape {tuple(shape)}, InceptionV3 needs {expected}")


def _damage(error: Exception) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"damaged, or not a weight file ({reason}); download it again"
