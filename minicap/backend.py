"""The one place that knows NumPy from CuPy.

Every layer asks its input which library it belongs to, `xp = array_module(x)`, and uses what
the two have in common; the few things that they do differently stand here.
"""

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy
from threadpoolctl import ThreadpoolController

from minicap.utils.errors import UserError

Array = Any  # numpy.ndarray or cupy.ndarray
DEVICES = ("cpu", "cuda")


class _BlasLimit:
    """One BLAS thread for as long as anyone needs it.

    The limit belongs to the process. If each user restored what it had found, two that overlap
    could leave it at one for good. So the first to enter sets it and the last to leave undoes it.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limit: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.limit = blas().limit(limits=1)
            self.users += 1

    def __exit__(self, *error) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.limit.restore_original_limits()


one_blas_thread = _BlasLimit()


@functools.cache
def blas() -> ThreadpoolController:
    """The BLAS libraries of this process; to find them takes half a millisecond."""
    return ThreadpoolController().select(user_api="blas")


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
        hint = "pip install -e '.[gpu]' in an environment without the cpu extra, or --device cpu"
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


def fused(function: Callable) -> Callable:
    """`function(xp, *arrays)`, which works element by element, as one kernel on a GPU.

    There each array function is a kernel of its own otherwise, which may take less time to run than
    to start. cupy.fuse calls `function` once for each kind of arrays, with stand-ins for them, and
    makes one kernel of all that it does to them. So it may use operators and xp's elementwise
    functions, nothing else; it may fill in those of its arrays that are as large as the largest;
    and it returns new arrays or nothing. On a CPU it runs as it stands.
    """

    @functools.cache
    def kernel(xp: ModuleType) -> Callable:
        return xp.fuse(kernel_name=function.__name__)(functools.partial(function, xp))

    @functools.wraps(function)
    def call(*arrays: Array) -> Any:
        xp = array_module(arrays[0])
        return function(xp, *arrays) if xp is numpy else kernel(xp)(*arrays)

    return call


def blocks(array: Array, block: int, worker: int = 0, num_workers: int = 1) -> list[slice]:
    """The rows of `array` in blocks of `block`, so that what is done to one finds it in the cache;
    of them, every one that falls to `worker` among `num_workers`. On a GPU, where each function called
    costs time, all rows are one block."""
    rows = len(array)
    block = block if array_module(array) is numpy else max(rows, 1)
    return [slice(i, i + block) for i in range(worker * block, rows, num_workers * block)]


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
        # The rows of each id, side by side. Most ids come once: all of these are added at once.
        # Adding up the others by themselves takes a tenth of numpy.add.at's time, and a third of
        # numpy.add.reduceat's where rows are as wide as an LSTM's gates.
        order = numpy.argsort(ids, kind="stable")
        distinct, starts, counts = numpy.unique(ids[order], return_index=True, return_counts=True)
        once = counts == 1
        target[distinct[once]] += rows[order[starts[once]]]
        for id_, start, count in zip(distinct[~once], starts[~once], counts[~once], strict=True):
            target[id_] += rows[order[start : start + count]].sum(axis=0)
