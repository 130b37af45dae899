"""Preallocated buffers."""

import numpy
from hypothesis import given
from hypothesis import strategies as st

from minicap.nn.workspace import ALIGNMENT, Workspace

SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6)


@given(SHAPES)
def test_arrays_do_not_overlap_and_are_aligned(shapes):
    """In the first step, where nothing fits, and in the second, where everything does."""
    workspace = Workspace()
    for _ in range(2):
        workspace.reset()
        arrays = [workspace.allocate(shape, "float32") for shape in shapes]
        for number, array in enumerate(arrays):
            array[...] = number
        for number, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            assert array.shape == shape and array.dtype == numpy.float32 and (array == number).all()
    assert all(numpy.shares_memory(array, workspace.memory) for array in arrays)
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in arrays)


def test_memory_is_reused_and_grows_if_needed():
    workspace = Workspace()
    workspace.allocate((10, 10), "float64")
    workspace.reset()
    first = workspace.allocate((10, 10), "float64")
    larger = workspace.allocate((30, 10), "float64")
    assert not numpy.shares_memory(larger, workspace.memory)
    memory = workspace.memory
    workspace.reset()
    assert workspace.memory is not memory and not numpy.shares_memory(first, workspace.memory)
    memory = workspace.memory
    for _ in range(3):
        workspace.reset()
        workspace.allocate((10, 10), "complex64"), workspace.allocate((30, 10), "float64")
    assert workspace.memory is memory
