"""The one place that knows NumPy from CuPy.

Every layer asks its input which library it belongs to, `xp = array_module(x)`, and uses what
the two have in common; the few things that they do differently stand here.
"""

import sys
from types import ModuleType
from typing import Any

import numpy

from minicap.errors import UserError

Array = Any  # numpy.ndarray or cupy.ndarray
DEVICES = ("cpu", "cuda")


def array_module(x: Array) -> ModuleType:
    """The library that `x` belongs to: numpy or cupy. CuPy is never imported for the question."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else numpy


def device_module(device: str) -> ModuleType:
    """numpy for "cpu", cupy for "cuda". UserError when CUDA is asked for and is not there."""
    if device == "cpu":
        return numpy
    if device != "cuda":
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        hint = "pip install 'minicap[gpu]' in an environment without the cpu extra, or --device cpu"
        raise UserError(f"--device cuda: CuPy cannot be imported ({error}): {hint}") from error
    except Exception as error:  # CUDARuntimeError and its kin: no driver, or one that is too old
        message = f"--device cuda: CuPy finds no usable GPU ({error}): use --device cpu"
        raise UserError(message) from error
    if count == 0:
        raise UserError("--device cuda: CuPy finds no GPU: use --device cpu")
    return cupy


def to_device(array: numpy.ndarray, xp: ModuleType) -> Array:
    """A host array as an array of `xp`: itself for numpy, a copy on the GPU for cupy."""
    return xp.asarray(array)


def to_host(array: Array) -> numpy.ndarray:
    """Any array as a NumPy array, copied from the GPU if it lies there."""
    return array.get() if array_module(array) is not numpy else numpy.asarray(array)


def add_rows(target: Array, ids: Array, rows: Array) -> None:
    """`target[ids[r]] += rows[r]` for every r, counting repeated ids every time.

    target: (V, D); ids: (R,) integers in [0, V); rows: (R, D).
    Plain `target[ids] += rows` would keep only one row for each repeated id.
    Ids must be valid: `cupyx.scatter_add` wraps those out of range in silence.
    """
    if array_module(target) is not numpy:
        import cupyx

        cupyx.scatter_add(target, ids, rows)
    else:
        # Where rows are as wide as an LSTM's gates, this plain loop takes a third of the time of
        # numpy.add.reduceat on sorted rows, and a tenth of numpy.add.at's.
        for id_, row in zip(ids.tolist(), rows, strict=True):
            target[id_] += row
