"""Workspace: the same memory in every step."""

import numpy
from hypothesis import given
from hypothesis import strategies as st

from minicap.nn.workspace import ALIGNMENT, Workspace

SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6)


@given(SHAPES)
def test_arrays_are_apart_and_aligned(shapes):
    """In the first step, where nothing fits, and in the second, where all does."""
    scratch = Workspace()
    for _ in range(2):
        scratch.reset()
        arrays = [scratch.empty(shape, "float32") for shape in shapes]
        for number, array in enumerate(arrays):
            array[...] = number
        for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            assert array.shape == shape and array.dtype == numpy.float32 and (array == number).all()
    assert all(numpy.shares_memory(array, scratch.memory) for array in arrays)
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in arrays)


def test_memory_is_used_again_and_grows_when_it_must():
    scratch = Workspace()
    scratch.empty((10, 10), "float64")
    scratch.reset()
    first = scratch.empty((10, 10), "float64")
    larger = scratch.empty((30, 10), "float64")
    assert not numpy.shares_memory(larger, scratch.memory)
    memory = scratch.memory
    scratch.reset()
    assert scratch.memory is not memory and not numpy.shares_memory(first, scratch.memory)
    memory = scratch.memory
    for _ in range(3):
        scratch.reset()
        scratch.empty((10, 10), "complex64"), scratch.empty((30, 10), "float64")
    assert scratch.memory is memory
