"""Preallocated buffers that every training step uses again."""

import math

import numpy
from numpy.typing import DTypeLike

ALIGNMENT = 64  # bytes, one cache line


class Workspace:
    """Allocates arrays from one block of memory, which `reset` makes available again.

    This avoids page faults: the operating system maps and clears each page of a newly allocated
    large array when it is first touched.

    Example:
        >>> workspace = Workspace()
        >>> for step in range(2):
        ...     workspace.reset()
        ...     logits = workspace.allocate((640, 5000), "float32")  # the same memory every time
    """

    def __init__(self) -> None:
        self.memory = numpy.empty(0, dtype="uint8")
        self.end = 0  # bytes in use, including those of arrays that did not fit

    def reset(self) -> None:
        """Release all arrays; later calls of `allocate` use their memory again.

        The block grows here if the arrays since the last reset did not fit.
        """
        if self.end > len(self.memory):
            self.memory = numpy.empty(self.end + ALIGNMENT, dtype="uint8")
        self.end = -self.memory.ctypes.data % ALIGNMENT

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> numpy.ndarray:
        """Allocate an uninitialised array, like ``numpy.empty``.

        Args:
            shape: shape of the array.
            dtype: its data type.

        Returns:
            An array that is valid until `reset`, aligned to a cache line. If the block is full,
            the array has memory of its own, and the block will be large enough after the next
            `reset`.
        """
        start, size = self.end, math.prod(shape) * numpy.dtype(dtype).itemsize
        self.end += size + -size % ALIGNMENT
        if self.end > len(self.memory):
            return numpy.empty(shape, dtype)
        array: numpy.ndarray = self.memory[start : start + size].view(dtype)
        return array.reshape(shape)
