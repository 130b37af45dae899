"""All parameters of a model in one flat buffer, with a named view of each."""

import math
from collections.abc import Iterator, Mapping
from types import ModuleType

import numpy
from numpy.typing import DTypeLike

from minicap.backend import Allocate, Array, array_module


class Parameters(Mapping[str, Array]):
    """A mapping from names to arrays that are views of one flat buffer.

    The optimiser, the gradient norm and the sum over workers use the whole buffer. A layer stores
    its gradient in a view.

    Args:
        shapes: the shape of each array, by name. The buffer has them in this order.
        dtype: data type of the buffer.
        xp: array library, numpy or cupy.
        zeros: allocates the buffer in place of ``xp.zeros``, in shared memory for example.

    Attributes:
        shapes: the shape of each array, by name.
        flat: (P,) the buffer.

    Example:
        >>> parameters = Parameters({"dense": (3, 2), "lstm": (4, 12)})
        >>> parameters.flat.shape
        (54,)
        >>> parameters["dense"].shape
        (3, 2)
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: DTypeLike = "float32",
        xp: ModuleType = numpy,
        zeros: Allocate | None = None,
    ):
        self.shapes = dict(shapes)
        size = sum(map(math.prod, self.shapes.values()))
        self.flat = (zeros or xp.zeros)((size,), dtype)
        self._views, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            self._views[name] = self.flat[start:end].reshape(shape)
            start = end

    def like(self, zeros: Allocate | None = None) -> "Parameters":
        """Allocate zeros with the same names, shapes, dtype and device, to hold gradients.

        Args:
            zeros: allocates the buffer, as in the constructor.

        Returns:
            The new Parameters.
        """
        return Parameters(self.shapes, self.flat.dtype, array_module(self.flat), zeros)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
