"""Published weight files -> `Weights`: Keras' HDF5, torchvision's state dict, timm's safetensors.

Which of them a file is, its first bytes say, not its name. All three hold the same 94 convolutions,
and each library runs them a little differently:

- Pixels. All of them, as published, take x / 127.5 - 1. torchvision's documented input is another
  (mean and deviation of ImageNet), but its `transform_input`, on for pretrained weights, turns that
  back before the first convolution. timm's `gluon_in1k` alone was trained on ImageNet's mean and
  deviation; it is read like the others here, which timm's authors found to work well too.
- The nine 3x3 average pools. Keras averages over the pixels that are there; torchvision and timm
  count the padding as zeros (`F.avg_pool2d`'s default), timm also where the weights come from
  TensorFlow. The rule here is the library's, so that its features come out.
- Batch norm. Keras' has no gamma, torch's has one. Epsilon is 0.001 everywhere.

Auxiliary heads and the classifier are left aside. Nothing is unpickled freely, and nothing is read
whose shape does not fit.
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

# By MD5, or by the start of the SHA-256 that torchvision writes into its files' names.
OFFICIAL = {
    f"md5:{KERAS_NOTOP_MD5}": "inception_v3 keras notop",
    "md5:9a0d58056eeedaa3f26cb7ebd46da564": "inception_v3 keras",
    "sha256:0cc3c7bd": "inception_v3 torchvision 0cc3c7bd",
    "sha256:1a9a5a14": "inception_v3 torchvision 1a9a5a14",
}
MAX_BYTES = 1 << 29  # five times the largest official file
BATCH_NORM = {"beta": "bias", "mean": "running_mean", "variance": "running_var", "gamma": "weight"}

# What finds an array: its name in the file and the shape that it must have -> the array.
Read = Callable[[str, tuple[int, ...]], np.ndarray]


def read_weights(path: str | Path) -> Weights:
    """The weights of InceptionV3 in a file of one of the three kinds, every shape checked.

    `name` is the official file's if its checksum is known, else the file's own; `sha256` is the
    file's. Raises UserError, in one line with file, layer and reason: no such file, of an unknown
    kind, damaged, of another network, with a layer missing or misshapen, with numbers that no
    network has (not finite, a negative variance), or h5py or torch missing.
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
        found = _read_keras(path)
    elif start.startswith((b"PK\x03\x04", b"\x80\x02")):
        found = _read_state_dict(path)
    elif start[8:9] == b"{":
        found = _read_safetensors(path)
    else:
        raise UserError(
            f"{path}: not a weight file; name a Keras .h5, a torchvision .pth or a .safetensors"
        )
    sums = (f"md5:{md5.hexdigest()}", f"sha256:{sha256.hexdigest()[:8]}")
    names = [OFFICIAL[s] for s in sums if s in OFFICIAL]
    counts = not start.startswith(b"\x89HDF")
    return Weights(names[0] if names else path.stem, found, counts, sha256.hexdigest())


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
    """Keras numbers its layers as they are created, which is the table's order; from which number
    on depends on what the process had built before. The file's own list is sorted by depth."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path}: reading Keras files needs h5py, which is not installed: pip install h5py"
        ) from error

    found: dict[str, dict[int, dict[str, str]]] = {"conv2d": {}, "batch_normalization": {}}
    others: list[str] = []

    def visit(name: str, thing: Any) -> None:  # links, which may lead out of the file, are left out
        match = KERAS_NAME.search(name)
        if not isinstance(thing, h5py.Dataset):
            return
        if match:
            layer, number, kind = match.groups()
            if kind == "bias":
                raise UserError(f"{path}: {name}: a convolution of InceptionV3 has no bias")
            names = found[layer].setdefault(int(number or 0), {})
            if names.setdefault(KERAS_KINDS[kind], name) != name:
                raise UserError(f"{path}: {names[KERAS_KINDS[kind]]} and {name}: one too many")
        elif len(others) < 3:
            others.append(name)

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)  # where the whole model was saved
            root.visititems(visit)
            if "layers/conv2d/vars" in root:
                raise UserError(
                    f"{path}: is in Keras 3's own layout, which does not keep the order of layers; "
                    f"name the official file, {KERAS_NOTOP}"
                )
            convs, norms = (_in_order(path, name, layers) for name, layers in found.items())
            if not convs or not norms:
                there = ", ".join(others) or "nothing"
                raise UserError(f"{path}: holds no InceptionV3 of Keras; it holds {there} ...")
            names = [{**conv, **norm} for conv, norm in zip(convs, norms, strict=True)]
            return _gather(path, names, lambda name, shape: _dataset(root[name], shape), hwio=True)
    except UserError:
        raise
    except Exception as error:  # a broken file may raise anything in h5py
        raise UserError(f"{path}: {_damaged(error)}") from error


def _in_order(path: Path, name: str, found: dict[int, dict[str, str]]) -> list[dict[str, str]]:
    """The names of the layers' arrays, by number; UserError unless there are 94, or none."""
    wanted = len(list(layers()))
    if len(found) not in (0, wanted):
        gap = next((n for n in range(min(found), max(found)) if n not in found), None)
        missing = "" if gap is None else f"; {name}_{gap} is missing"
        raise UserError(
            f"{path}: holds {len(found)} layers {name}_..., InceptionV3 has {wanted}{missing}"
        )
    return [found[number] for number in sorted(found)]


def _dataset(dataset: Any, shape: tuple[int, ...]) -> np.ndarray:
    _check_shape(dataset.shape or (), shape)
    if dataset.dtype.kind != "f":
        raise _Unfit(f"holds {dataset.dtype}, not floating-point numbers")
    if dataset.chunks and np.prod(dataset.chunks) > 2 * np.prod(shape):
        raise _Unfit(f"is stored in chunks of {dataset.chunks}")  # each is read as a whole
    return dataset[()]


# ---- torchvision and timm -------------------------------------------------------------------

STEM = dict(zip("12356", ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"), strict=True))
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def torch_name(layer: Layer) -> str:
    """A layer's name in torchvision: mixed9/3x3/2/1x3 -> Mixed_7b.branch3x3_2a."""
    block, branch, *steps = layer.name.split("/")
    if block == "stem":
        return f"Conv2d_{STEM[branch]}"
    mixed = f"Mixed_{BLOCKS[int(block.removeprefix('mixed'))]}"
    if branch == "pool":
        return f"{mixed}.branch_pool"
    fork = {"1x3": "a", "3x1": "b"}
    return f"{mixed}.branch{branch}" + "".join(fork.get(s, f"_{s}") for s in steps)


def _torch_names() -> list[dict[str, str]]:
    found = []
    for layer in layers():
        name = torch_name(layer)
        norm = {kind: f"{name}.bn.{theirs}" for kind, theirs in BATCH_NORM.items()}
        found.append({"kernel": f"{name}.conv.weight", **norm})
    return found


def _read_state_dict(path: Path) -> list[LayerWeights]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: reading a .pth needs PyTorch, which is not installed: pip install torch; "
            "or name a Keras .h5 or a .safetensors"
        ) from error
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                unpacked = sum(entry.file_size for entry in file.infolist())
            if unpacked > MAX_BYTES:
                raise ValueError(f"it unpacks to {unpacked:,} bytes")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile file may raise anything in torch's reader
        raise UserError(f"{path}: {_damaged(error)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not a state dict")

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            raise _Unfit(f"is a {type(tensor).__name__}, not a tensor")
        _check_shape(tuple(tensor.shape), shape)
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise _Unfit(f"holds {tensor.dtype} {tensor.layout}, not floating-point numbers")
        return tensor.detach().double().numpy()

    return _gather(path, _torch_names(), read)


def _read_safetensors(path: Path) -> list[LayerWeights]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            there = set(file.keys())

            def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
                if name not in there:
                    raise KeyError(name)
                view = file.get_slice(name)
                _check_shape(tuple(view.get_shape()), shape)
                if view.get_dtype() not in ("F64", "F32", "F16"):
                    raise _Unfit(f"holds {view.get_dtype()}; save it as F32")
                return file.get_tensor(name)

            return _gather(path, _torch_names(), read)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: {_damaged(error)}") from error


# ---- all of them ----------------------------------------------------------------------------


class _Unfit(Exception):
    """An array that cannot be what its name says; the text is the reason."""


def _gather(
    path: Path, names: Sequence[dict[str, str]], read: Read, hwio: bool = False
) -> list[LayerWeights]:
    """Read the arrays called `names`, for each layer by kind, into the table's form.

    Kernels are (filters, channels, height, width) in the file, or with `hwio`, as in Keras,
    (height, width, channels, filters). A gamma, where there is one, goes into kernel and mean,
    in float64.
    """
    found = []
    for layer, named in zip(layers(), names, strict=True):
        filters, channels, height, width = layer.shape
        kernel_shape = (height, width, channels, filters) if hwio else layer.shape

        def numbers(kind: str, shape: tuple[int, ...], named: dict[str, str] = named) -> np.ndarray:
            name = named.get(kind, "")
            try:
                array = read(name, shape)
                if not np.isfinite(array).all():
                    raise _Unfit("holds numbers that are not finite")
                if kind == "variance" and (array < 0).any():
                    raise _Unfit("holds a negative variance")
            except KeyError:
                missing = name or f"{kind} beside {min(named.values())}"
                raise UserError(
                    f"{path}: holds no {missing}: not (all) the weights of an InceptionV3"
                ) from None
            except _Unfit as error:
                raise UserError(f"{path}: {name}: {error}") from None
            return array

        kernel = numbers("kernel", kernel_shape)
        beta, mean, variance = (numbers(kind, (filters,)) for kind in ("beta", "mean", "variance"))
        if hwio:
            kernel = kernel.transpose(3, 2, 0, 1)
        if "gamma" in named:
            gamma = numbers("gamma", (filters,)).astype(np.float64)
            kernel, mean = kernel * gamma[:, None, None, None], mean * gamma
        found.append(LayerWeights(kernel, beta, mean, variance))
    return found


def _check_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(found) != wanted:
        raise _Unfit(f"has the shape {tuple(found)}, InceptionV3 has {wanted} there")


def _damaged(error: Exception) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"damaged, or not a weight file ({reason}); fetch it again"
