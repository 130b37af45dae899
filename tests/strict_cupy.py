"""A stand-in for CuPy on machines that have no GPU: NumPy arrays that pretend to lie on a device.

It raises where CuPy raises: NumPy's functions and `numpy.asarray` refuse its arrays, its own
functions refuse NumPy's, and only what is listed here exists. In a few places it is stricter, to
find what would be slow on a GPU: CuPy copies NumPy arrays that are used as indexes to the device
without a word, lets one iterate over an array (a transfer for each row), and sends NumPy's
ufuncs to its own. `empty` is filled with NaN, so that nothing relies on what lay there before.
What only a GPU can show (kernels, streams, the order of atomic additions) it cannot show.
"""

import operator
import types

import numpy

ELEMENTWISE = ["exp", "expm1", "log", "sqrt", "tanh", "minimum", "maximum", "isfinite", "where"]
ELEMENTWISE += ["add", "subtract", "multiply", "divide"]
FUNCTIONS = ["zeros", "zeros_like", "ones", "full", "arange", "concatenate", "argmax", "matmul"]
FUNCTIONS += ["sort", "stack", "ascontiguousarray"]

dtypes_made: set[numpy.dtype] = set()  # of every array since the set was last cleared


def on_host(value):
    """What NumPy needs to compute; TypeError if there is an array of the host's among it."""
    if isinstance(value, ndarray | Traced):
        return value._host
    if isinstance(value, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list):
        return type(value)(map(on_host, value))
    return value


def on_device(value):
    return ndarray(numpy.asarray(value))


class ndarray:
    __array_ufunc__ = None  # numpy.exp(x) and a_numpy_array * x: TypeError
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None

    def __init__(self, host):
        self._host = host
        dtypes_made.add(host.dtype)

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

    # These wait for the GPU and copy one number: allowed.
    def __float__(self):
        return float(self._host)

    def __int__(self):
        return int(self._host)

    def __bool__(self):
        return bool(self._host)

    def item(self):
        return self._host.item()


class Traced:
    """What an array is within a fused function: it has operators, and nothing else."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host):
        self._host = host
        dtypes_made.add(host.dtype)

    def __bool__(self):
        raise TypeError("Can't cast to bool")


def _operators(kind, name, function):
    """Gives `kind` x + y, y + x and, where Python has it, x += y."""

    def forward(self, other):
        return kind(numpy.asarray(function(self._host, on_host(other))))

    def reflected(self, other):
        return kind(numpy.asarray(function(on_host(other), self._host)))

    setattr(kind, f"__{name}__", forward)
    setattr(kind, f"__r{name}__", reflected)
    if hasattr(operator, f"i{name}"):
        in_place_function = getattr(operator, f"i{name}")

        def in_place(self, other):
            in_place_function(self._host, on_host(other))  # in the device's own memory
            return self

        setattr(kind, f"__i{name}__", in_place)


_operators(ndarray, "matmul", operator.matmul)
for _name in ["add", "sub", "mul", "truediv", "lt", "le", "eq", "ne", "gt", "ge"]:
    _operators(ndarray, _name, getattr(operator, _name))
    _operators(Traced, _name, getattr(operator, _name))


def _on_device_only(function, elementwise=False):
    """`function` for device arrays: out= is on the device too, and is what comes back."""

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
    """Calls the function with Traced for all arrays. It may return Traced, several of them, or
    nothing."""

    def decorator(function):
        def call(*args):
            for x in args:
                if not isinstance(x, ndarray | float | int | bool):
                    raise TypeError(f"Invalid argument type for {kernel_name!r}: {type(x)}")
            given = [Traced(x._host) if isinstance(x, ndarray) else x for x in args]
            largest = numpy.broadcast_shapes(*[x.shape for x in args if isinstance(x, ndarray)])
            before = [x._host.copy() for x in args if isinstance(x, ndarray)]
            found = function(*given)
            after = [x._host for x in args if isinstance(x, ndarray)]
            for old, new in zip(before, after, strict=True):
                if new.shape != largest and not numpy.array_equal(old, new, equal_nan=True):
                    raise ValueError("an array that is filled in is smaller than others")
            if found is None:
                return None
            if isinstance(found, Traced):
                return ndarray(found._host)
            return tuple(ndarray(x._host) for x in found)

        return call

    return decorator


METHODS = ["sum", "mean", "max", "min", "argmax", "all", "any", "reshape", "astype", "copy"]
METHODS += ["cumsum"]
for _name in METHODS:
    setattr(ndarray, _name, _on_device_only(getattr(numpy.ndarray, _name)))


def _empty(shape, dtype=float):
    array = numpy.empty(shape, dtype)
    if array.dtype.kind in "fc":
        array.fill(numpy.nan)
    return on_device(array)


def _scatter_add(target, ids, rows):
    """Ids that are out of range come in again at the other end, without a word, as in CuPy."""
    numpy.add.at(target._host, on_host(ids) % len(target), on_host(rows))


def modules() -> dict[str, types.ModuleType]:
    """The stand-ins, by the names under which sys.modules must have them."""
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
