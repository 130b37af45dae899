"""Memory that a worker uses again in every step."""

import math

import numpy

ALIGNMENT = 64  # bytes: a line of the cache


class Workspace:
    """Makes arrays that live until `reset`, all in one piece of memory.

    Large arrays that are made afresh in every step are slow: the operating system has to find,
    and to clear, each page of them at the first touch.
    """

    def __init__(self) -> None:
        self.memory = numpy.empty(0, dtype="uint8")
        self.end = 0  # bytes that are given out, or would be if there were enough

    def reset(self) -> None:
        """All arrays made so far are given up; their memory is used again."""
        if self.end > len(self.memory):
            self.memory = numpy.empty(self.end + ALIGNMENT, dtype="uint8")
        self.end = -self.memory.ctypes.data % ALIGNMENT

    def allocate(self, shape: tuple[int, ...], dtype) -> numpy.ndarray:
        """As numpy.empty. What does not fit is made afresh, and fits after the next `reset`."""
        start, size = self.end, math.prod(shape) * numpy.dtype(dtype).itemsize
        self.end += size + -size % ALIGNMENT
        if self.end > len(self.memory):
            return numpy.empty(shape, dtype)
        return self.memory[start : start + size].view(dtype).reshape(shape)
