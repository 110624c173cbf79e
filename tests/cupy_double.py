"""A small double of CuPy: its arrays hold NumPy's, and refuse what CuPy refuses.

It is strict where NumPy is lenient: a device array never turns into a NumPy array silently, an
operation takes no NumPy array, a function that is not in ``FUNCTIONS`` is not there. The sums of
``add.reduceat`` are CuPy's, and every time the host would wait for the device is counted.

It follows the sources of CuPy 14. Of time, rounding and atomics it says nothing.
"""

import types

import numpy

CREATORS = [
    *("arange", "array", "asarray", "empty", "empty_like", "eye", "full"),
    *("ones", "ones_like", "zeros", "zeros_like"),
]
# Add a name once it is known that CuPy has it.
FUNCTIONS = [
    *("abs", "add", "argsort", "ascontiguousarray", "broadcast_to", "clip", "concatenate", "dot"),
    *("exp", "isfinite", "log", "log1p", "matmul", "maximum", "minimum", "multiply", "nanmax"),
    *("searchsorted", "sqrt", "square", "stack", "subtract", "tanh", "where"),
]
SAME = ["dtype", "finfo", "float32", "float64", "inf", "int64", "ndim", "newaxis", "pi"]
METHODS = [
    *("all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumsum", "dot"),
    *("fill", "flatten", "max", "mean", "min", "prod", "ravel", "reshape", "round", "sum"),
    *("swapaxes", "take", "transpose", "view"),
]
UNARY = ["neg", "pos", "abs", "invert"]
BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]
COMPARISONS = ["lt", "le", "eq", "ne", "gt", "ge"]


class DeviceArray:
    """What is called ``cupy.ndarray``."""

    waits = []  # what the host waited for, in order
    __array_ufunc__ = None  # a NumPy array on the left of an operator gives up
    __hash__ = None

    def __init__(self, values):
        self._values = numpy.asarray(values)

    shape, dtype, ndim, size, itemsize, strides = (
        property(lambda self, name=name: getattr(self._values, name))
        for name in ("shape", "dtype", "ndim", "size", "itemsize", "strides")
    )
    T = property(lambda self: DeviceArray(self._values.T))

    @property
    def flags(self):
        """CuPy knows neither ``writeable`` nor ``aligned``."""
        flags = self._values.flags
        return types.SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.fnc)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self._values.__array_interface__["data"][0])

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self):
        return len(self._values)

    def __repr__(self):
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index):
        return DeviceArray(self._values[_index(index)])

    def __setitem__(self, index, value):
        self._values[_index(index)] = _host(value)

    def get(self, why="get"):
        """A copy on the CPU."""
        self.waits.append(why)
        return self._values.copy()

    def item(self):
        return self.get("item").item()

    def tolist(self):
        return self.get("tolist").tolist()

    def __bool__(self):
        return bool(self.get("bool"))

    def __int__(self):
        return int(self.get("int"))

    __index__ = __int__

    def __float__(self):
        return float(self.get("float"))


def _host(value):
    """What NumPy computes with, of a device array or a number; other arrays are refused."""
    if isinstance(value, DeviceArray):
        return value._values
    if isinstance(value, numpy.ndarray | list | tuple):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _index(index):
    """As for ``_host``, except that an index may be a NumPy array, and a mask is waited for."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, DeviceArray):
        if index.dtype == bool:
            DeviceArray.waits.append("mask")
        return index._values
    return index


def _given(value):
    return type(value)(map(_host, value)) if isinstance(value, list | tuple) else _host(value)


def _run(function, *args, out=None, **options):
    if out is not None:
        options["out"] = _host(out)
    result = function(*map(_given, args), **options)
    return DeviceArray(result) if out is None else out


def _operator(name):
    def operate(self, *others):
        result = getattr(self._values, name)(*map(_host, others))
        if result is NotImplemented:
            return NotImplemented
        return self if result is self._values else DeviceArray(result)  # itself where in place

    return operate


def _method(name):
    def call(self, *args, **options):
        return _run(getattr(numpy.ndarray, name), self, *args, **options)

    return call


for _name in METHODS:
    setattr(DeviceArray, _name, _method(_name))
for _name in [
    *UNARY,
    *COMPARISONS,
    *(prefix + name for name in BINARY for prefix in ("", "r", "i")),
]:
    setattr(DeviceArray, f"__{_name}__", _operator(f"__{_name}__"))


def _create(function):
    def call(*args, **options):
        bare = (x._values if isinstance(x, DeviceArray) else x for x in args)
        return DeviceArray(function(*bare, **options))

    return call


def _asarray(x, dtype=None):
    same = isinstance(x, DeviceArray) and dtype in (None, x.dtype)
    return x if same else _create(numpy.array)(x, dtype=dtype)


def _function(function):
    return lambda *args, **options: _run(function, *args, **options)


def _where(condition, x, y):
    return _run(numpy.where, condition, x, y)


def _add_reduceat(array, starts, axis=0):
    """Differences of one running sum, as in CuPy's ``_add_reduceat``."""
    values, starts = _host(array), _host(starts)
    sums = numpy.cumsum(values, axis, dtype=values.dtype)
    sums = numpy.append(numpy.zeros_like(sums.take([0], axis)), sums, axis)
    ends = numpy.append(starts[1:], values.shape[axis])
    return DeviceArray(sums.take(ends, axis) - sums.take(starts, axis))


def _add_at(table, ids, rows):
    numpy.add.at(_host(table), _index(ids), _host(rows))


def _reads_its_size(name):
    def call(*args, **options):
        DeviceArray.waits.append(name)
        return _run(getattr(numpy, name), *args, **options)

    return call


def module():
    """What ``import cupy`` gives."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    cupy.ndarray = DeviceArray
    for name in SAME:
        setattr(cupy, name, getattr(numpy, name))
    for name in CREATORS:
        setattr(cupy, name, _create(getattr(numpy, name)))
    for name in FUNCTIONS:
        setattr(cupy, name, _function(getattr(numpy, name)))
    cupy.asarray, cupy.where = _asarray, _where
    cupy.add.reduceat, cupy.add.at = _add_reduceat, _add_at
    for name in ("bincount", "flatnonzero", "nonzero", "unique"):
        setattr(cupy, name, _reads_its_size(name))
    return cupy
