"""Read one file in PyTorch's old pickle format, without PyTorch.

A pickle is a program: reading one from a stranger can do anything. This module reads a single file,
whose SHA-256 it knows, and even there its unpickler can build tensors and nothing else.

The format: five pickles in a row (a magic number, a version, the machine, the state dict, and the
names of the storages), then each storage in that order, as its length and its numbers.
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minicap.utils.errors import UserError

DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensors(pickle.Unpickler):
    """Builds descriptions of tensors: (storage's name, dtype, offset, shape, strides)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, *layout: (*storage, *layout[:3])
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        _, dtype, name, *_ = pid
        return name, dtype


def read_state_dict(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read the file whose checksum is known.

    Args:
        path: the file.
        sha256: its SHA-256, in hex. No byte of another file is unpickled.

    Returns:
        Name -> array.

    Raises:
        UserError: the file cannot be read, or it is another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights ({error.strerror or error})") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{path}: not the published weights (its SHA-256 differs): install the package again"
        )
    return unpickled(content)


def unpickled(content: bytes) -> dict[str, np.ndarray]:
    """Unpickle a state dict whose checksum has been compared."""
    file = io.BytesIO(content)
    *_, tensors, names = (_Tensors(file).load() for _ in range(5))
    storages = {}
    dtypes = {name: dtype for name, dtype, *_ in tensors.values()}
    for name in names:
        length = int.from_bytes(file.read(8), "little")
        storages[name] = np.frombuffer(file.read(length * dtypes[name].itemsize), dtypes[name])
    return {
        name: _view(storages[storage], offset, shape, strides)
        for name, (storage, _, offset, shape, strides) in tensors.items()
    }


def _view(
    storage: np.ndarray, offset: int, shape: Sequence[int], strides: Sequence[int]
) -> np.ndarray:
    """A tensor in its storage; offset and strides count numbers, not bytes."""
    if offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
