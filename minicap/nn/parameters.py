"""All parameters of a model in one flat buffer, with a named view for each."""

import math
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import numpy

from minicap.backend import Array, array_module


class Parameters(Mapping[str, Array]):
    """Named arrays that lie one behind the other in `flat`, (P,).

    An optimiser, a sum over workers or a norm then needs one line and knows no names; a layer
    writes its gradient straight into a view. Views are in the order of `shapes`.
    zeros: makes the buffer, if it is not to be xp.zeros.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype="float32",
        xp: ModuleType = numpy,
        zeros: Callable | None = None,
    ):
        self.shapes = dict(shapes)
        self.flat = (zeros or xp.zeros)(sum(map(math.prod, self.shapes.values())), dtype)
        self._views, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            self._views[name] = self.flat[start:end].reshape(shape)
            start = end

    def like(self, zeros: Callable | None = None) -> "Parameters":
        """Zeros of the same names, shapes, dtype and device: room for gradients."""
        return Parameters(self.shapes, self.flat.dtype, array_module(self.flat), zeros)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
