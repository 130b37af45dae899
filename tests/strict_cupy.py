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

FUNCTIONS = ["zeros", "zeros_like", "arange", "where", "concatenate", "argmax", "matmul"]
FUNCTIONS += ["full", "sort"]
FUNCTIONS += ["ascontiguousarray", "exp", "expm1", "log", "sqrt", "tanh"]
FUNCTIONS += ["minimum", "maximum", "isfinite", "ones", "add", "subtract", "multiply", "divide"]

dtypes_made: set[numpy.dtype] = set()  # of every array since the set was last cleared


def on_host(value):
    """What NumPy needs to compute; TypeError if there is an array of the host's among it."""
    if isinstance(value, ndarray):
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


def _operators(name, function):
    """Gives ndarray `x + y`, `y + x` and, where Python has it, `x += y`."""

    def forward(self, other):
        return on_device(function(self._host, on_host(other)))

    def reflected(self, other):
        return on_device(function(on_host(other), self._host))

    setattr(ndarray, f"__{name}__", forward)
    setattr(ndarray, f"__r{name}__", reflected)
    if hasattr(operator, f"i{name}"):
        in_place_function = getattr(operator, f"i{name}")

        def in_place(self, other):
            in_place_function(self._host, on_host(other))  # in the device's own memory
            return self

        setattr(ndarray, f"__i{name}__", in_place)


for _name in ["add", "sub", "mul", "truediv", "matmul", "lt", "le", "eq", "ne", "gt", "ge"]:
    _operators(_name, getattr(operator, _name))


def _on_device_only(function):
    """`function` for device arrays: out= is on the device too, and is what comes back."""

    def call(*args, out=None, **options):
        args, options = on_host(args), {name: on_host(value) for name, value in options.items()}
        if out is None:
            return on_device(function(*args, **options))
        if not isinstance(out, ndarray):
            raise TypeError(f"out must be on the device, not {type(out)}")
        function(*args, out=out._host, **options)
        return out

    return call


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
    for name in FUNCTIONS:
        setattr(cupy, name, _on_device_only(getattr(numpy, name)))
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    cupyx.scatter_add = _scatter_add
    return {"cupy": cupy, "cupyx": cupyx}
