"""A fake CuPy for machines without a GPU: its arrays are NumPy arrays that only it accepts.

It raises where CuPy raises: NumPy's functions and `numpy.asarray` reject its arrays, its functions
reject NumPy's arrays, and it has only the functions listed here. It also raises in a few cases that
CuPy allows but that are slow on a GPU: NumPy arrays as indexes (a copy to the device), iterating
over an array (a transfer per row) and NumPy's ufuncs. `empty` returns NaN, so that nothing relies
on uninitialised memory. It cannot test what needs a GPU: kernels, streams and the order of atomic
additions.
"""

import operator
import types

import numpy

ELEMENTWISE = ["exp", "expm1", "log", "sqrt", "tanh", "minimum", "maximum", "isfinite", "where"]
ELEMENTWISE += ["add", "subtract", "multiply", "divide"]
FUNCTIONS = ["zeros", "zeros_like", "ones", "full", "arange", "concatenate", "argmax", "matmul"]
FUNCTIONS += ["sort", "stack", "ascontiguousarray"]

created_dtypes: set[numpy.dtype] = set()  # of all arrays since the set was last cleared


def on_host(value):
    """Unwrap arrays, also in tuples and lists. TypeError for an array on the host."""
    if isinstance(value, ndarray | Traced):
        return value._host
    if isinstance(value, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list):
        return type(value)(map(on_host, value))
    return value


def on_device(value):
    """Wrap an array or a number."""
    return ndarray(numpy.asarray(value))


class ndarray:
    """An array on the fake device."""

    __array_ufunc__ = None  # numpy.exp(x) and a_numpy_array * x: TypeError
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None

    def __init__(self, host):
        self._host = host
        created_dtypes.add(host.dtype)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, *args, **kwargs):
        raise TypeError("a NumPy function was called with an array on the device")

    shape = property(lambda self: self._host.shape)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    dtype = property(lambda self: self._host.dtype)
    T = property(lambda self: on_device(self._host.T))
    real = property(lambda self: on_device(self._host.real))

    def __neg__(self):
        return on_device(-self._host)

    def get(self):
        return self._host.copy()

    def __getitem__(self, index):
        return on_device(self._host[on_host(index)])

    def __setitem__(self, index, value):
        self._host[on_host(index)] = on_host(value)

    def __len__(self):
        return len(self._host)

    # Allowed: these wait for the GPU and copy one number.
    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __bool__(self):
        return bool(self._host)

    def item(self):
        return self._host.item()


class Traced:
    """The placeholder for an array in a fused function: it has operators only."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host):
        self._host = host
        created_dtypes.add(host.dtype)

    def __bool__(self):
        raise TypeError("Can't cast to bool")


def _operators(kind, name, function):
    """Add x + y, y + x and, if Python has it, x += y to the class `kind`."""

    def forward(self, other):
        return kind(numpy.asarray(function(self._host, on_host(other))))

    def reflected(self, other):
        return kind(numpy.asarray(function(on_host(other), self._host)))

    setattr(kind, f"__{name}__", forward)
    setattr(kind, f"__r{name}__", reflected)
    if hasattr(operator, f"i{name}"):
        in_place_function = getattr(operator, f"i{name}")

        def in_place(self, other):
            in_place_function(self._host, on_host(other))  # in place
            return self

        setattr(kind, f"__i{name}__", in_place)


_operators(ndarray, "matmul", operator.matmul)
for _name in ["add", "sub", "mul", "truediv", "lt", "le", "eq", "ne", "gt", "ge"]:
    _operators(ndarray, _name, getattr(operator, _name))
    _operators(Traced, _name, getattr(operator, _name))


def _on_device_only(function, elementwise=False):
    """Make `function` accept and return arrays on the device only, including out=."""

    def call(*args, out=None, **options):
        kind = Traced if any(isinstance(x, Traced) for x in args) else ndarray
        if kind is Traced and not elementwise:
            raise TypeError(f"{function} cannot be fused")
        args, options = on_host(args), {name: on_host(value) for name, value in options.items()}
        if out is None:
            return kind(numpy.asarray(function(*args, **options)))
        if not isinstance(out, kind):
            raise TypeError(f"out must be on the device, not {type(out)}")
        function(*args, out=out._host, **options)
        return out

    return call


def fuse(kernel_name):
    """Call the function with a Traced for each array. It returns a Traced, several, or None."""

    def decorator(function):
        def call(*args):
            for x in args:
                if not isinstance(x, ndarray | float | int | bool):
                    raise TypeError(f"Invalid argument type for {kernel_name!r}: {type(x)}")
            traced = [Traced(x._host) if isinstance(x, ndarray) else x for x in args]
            largest = numpy.broadcast_shapes(*[x.shape for x in args if isinstance(x, ndarray)])
            before = [x._host.copy() for x in args if isinstance(x, ndarray)]
            result = function(*traced)
            after = [x._host for x in args if isinstance(x, ndarray)]
            for old, new in zip(before, after, strict=True):
                if new.shape != largest and not numpy.array_equal(old, new, equal_nan=True):
                    raise ValueError("an output array is smaller than others")
            if result is None:
                return None
            if isinstance(result, Traced):
                return ndarray(result._host)
            return tuple(ndarray(x._host) for x in result)

        return call

    return decorator


METHODS = ["sum", "mean", "max", "min", "argmax", "all", "any", "reshape", "astype", "copy"]
METHODS += ["cumsum", "ravel"]
for _name in METHODS:
    setattr(ndarray, _name, _on_device_only(getattr(numpy.ndarray, _name)))


def _empty(shape, dtype=float):
    array = numpy.empty(shape, dtype)
    if array.dtype.kind in "fc":
        array.fill(numpy.nan)
    return on_device(array)


def _scatter_add(target, ids, rows):
    """Add rows. Ids out of range wrap around without an error, as in CuPy."""
    numpy.add.at(target._host, on_host(ids) % len(target), on_host(rows))


def modules() -> dict[str, types.ModuleType]:
    """Make the fake modules, by their names in sys.modules."""
    cupy, cupyx = types.ModuleType("cupy"), types.ModuleType("cupyx")
    cupy.ndarray = ndarray
    cupy.asarray = lambda x: x if isinstance(x, ndarray) else on_device(numpy.array(x))
    cupy.asnumpy = lambda x: x.get()
    cupy.empty = _empty
    cupy.empty_like = lambda x: _empty(x.shape, x.dtype)
    cupy.result_type = lambda *args: numpy.result_type(*on_host(args))
    cupy.fuse = fuse
    for name in FUNCTIONS + ELEMENTWISE:
        setattr(cupy, name, _on_device_only(getattr(numpy, name), name in ELEMENTWISE))
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    cupyx.scatter_add = _scatter_add
    return {"cupy": cupy, "cupyx": cupyx}
