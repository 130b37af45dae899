"""NumPy on a CPU, CuPy on a GPU.

Every layer asks for the library of its input, `xp = array_module(x)`, and uses the functions that
the two have in common. This module has the operations in which they differ.
"""

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import numpy
from threadpoolctl import ThreadpoolController

from minicap.utils.errors import UserError
from minicap.utils.ranks import world

R = TypeVar("R")
Array = Any  # numpy.ndarray or cupy.ndarray
Allocate = Callable[[tuple[int, ...], Any], Array]  # takes a shape and a dtype, like numpy.empty
DEVICES = ("cpu", "cuda")


class _BlasLimit:
    """Limit BLAS to one thread while any `with` block is active.

    The limit applies to the whole process. If each block restored the limit that it found, two
    overlapping blocks could leave it at one. So the first block to start sets the limit and the
    last one to end restores it.
    """

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.limit: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.users:
                self.limit = blas().limit(limits=1)
            self.users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.users -= 1
            if not self.users:
                self.limit.restore_original_limits()


one_blas_thread = _BlasLimit()


@functools.cache
def blas() -> ThreadpoolController:
    """Find the BLAS libraries of this process, once: it takes half a millisecond."""
    return ThreadpoolController().select(user_api="blas")


def array_module(x: Array) -> ModuleType:
    """Return the library of an array, numpy or cupy, without importing CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(x, cupy.ndarray) else numpy


def device_module(device: str) -> ModuleType:
    """Return the array library of a device.

    Args:
        device: "cpu" or "cuda".

    Returns:
        numpy or cupy. The ranks of an MPI job on this machine divide its GPUs among them.

    Raises:
        UserError: unknown device; or CuPy or a usable GPU is missing.
    """
    if device == "cpu":
        return numpy
    if device != "cuda":
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        hint = (
            "run pip install -e '.[gpu]' in an environment without the cpu extra, or use "
            "--device cpu"
        )
        raise UserError(f"--device cuda: CuPy cannot be imported ({error}): {hint}") from error
    except Exception as error:  # CUDARuntimeError and others: no driver, or an old one
        message = f"--device cuda: CuPy finds no usable GPU ({error}): use --device cpu"
        raise UserError(message) from error
    if count == 0:
        raise UserError("--device cuda: CuPy finds no GPU: use --device cpu")
    if world().size > 1:
        cupy.cuda.Device(world().rank_here % count).use()
    module: ModuleType = cupy
    return module


def to_device(array: numpy.ndarray, xp: ModuleType) -> Array:
    """Move a host array to the device of ``xp``: a copy for cupy, the array itself for numpy."""
    return xp.asarray(array)


def to_host(array: Array) -> numpy.ndarray:
    """Return an array as a NumPy array, copied if it is on the GPU."""
    return array.get() if array_module(array) is not numpy else numpy.asarray(array)


def fused(function: Callable[..., R]) -> Callable[..., R]:
    """Fuse an elementwise function into one kernel on a GPU. On a CPU it runs unchanged.

    Without kernel fusion every operation is a kernel of its own, which may take less time to run
    than to launch. cupy.fuse calls ``function`` once for each combination of array types, with
    placeholders for the arrays, and records the operations.

    Args:
        function: ``function(xp, *arrays)``. It may use operators and elementwise functions of
            ``xp``, nothing else. It may write to those arrays that have the largest shape. It
            returns new arrays or None.

    Returns:
        The function without its first argument.
    """

    @functools.cache
    def kernel(xp: ModuleType) -> Callable[..., R]:
        fuse: Callable[..., Callable[..., R]] = xp.fuse(kernel_name=function.__name__)
        return fuse(functools.partial(function, xp))

    @functools.wraps(function)
    def call(*arrays: Array) -> R:
        xp = array_module(arrays[0])
        return function(xp, *arrays) if xp is numpy else kernel(xp)(*arrays)

    return call


def blocks(array: Array, block: int, worker: int = 0, num_workers: int = 1) -> list[slice]:
    """Split the rows of an array into blocks that fit into the cache.

    On a GPU, where each call of a function costs time, all rows are one block.

    Args:
        array: (N, ...).
        block: rows per block.
        worker: which worker this is.
        num_workers: number of workers; each takes every num_workers-th block.

    Returns:
        The worker's blocks, as slices of rows.
    """
    rows = len(array)
    block = block if array_module(array) is numpy else max(rows, 1)
    return [slice(i, i + block) for i in range(worker * block, rows, num_workers * block)]


def add_rows(target: Array, ids: Array, rows: Array) -> None:
    """Add rows to a table, in place: target[ids[r]] += rows[r] for every r.

    Repeated ids add up; the statement ``target[ids] += rows`` would keep only one row for each.

    Args:
        target: (V, D).
        ids: (R,) integers in [0, V). On a GPU, ids out of range wrap around without an error.
        rows: (R, D).
    """
    if array_module(target) is not numpy:
        import cupyx

        cupyx.scatter_add(target, ids, rows)
    else:
        # Sort the rows by id. Most ids occur once, and their rows are added in one operation. The
        # rows of each other id are summed separately: a tenth of the time of numpy.add.at, and a
        # third of that of numpy.add.reduceat for rows as wide as an LSTM's gates.
        order = numpy.argsort(ids, kind="stable")
        distinct, starts, counts = numpy.unique(ids[order], return_index=True, return_counts=True)
        once = counts == 1
        target[distinct[once]] += rows[order[starts[once]]]
        for id_, start, count in zip(distinct[~once], starts[~once], counts[~once], strict=True):
            target[id_] += rows[order[start : start + count]].sum(axis=0)
