"""Functions of CuPy that are not elementwise: they make, reduce, multiply, sort and join arrays."""

import numpy

from tests.cupy_double.arrays import DeviceArray, _from_host
from tests.cupy_double.counters import counters
from tests.cupy_double.signatures import CUPY, NDARRAY, held_to
from tests.cupy_double.ufuncs import _bare, _kind, ufunc

CHUNK = 512  # elements that a scan sums at a time
LARGE = 0x7B7B7B7B  # what an integer of new memory is, far out of range
FUNCTIONS = {}


def routine(function):
    """``cupy.NAME``, with the signature that CuPy has."""
    FUNCTIONS[function.__name__] = held_to(CUPY[function.__name__])(function)
    return FUNCTIONS[function.__name__]


# --- new arrays


def _empty(shape, dtype, order="C"):
    """Memory with numbers that nobody can take for a result."""
    values = numpy.empty(shape, dtype, order)
    kind = values.dtype.kind
    if kind in "fc":
        values.fill(numpy.nan)
    elif kind == "b":
        values.fill(True)
    else:  # bytes may become floats: all bits set are NaN
        is_byte = values.dtype == numpy.uint8
        values.fill(255 if is_byte else LARGE % (1 << 8 * values.itemsize - 1))
    return DeviceArray(values)


def _like(a, dtype, shape):
    return a.shape if shape is None else shape, a.dtype if dtype is None else dtype


@routine
def empty(shape, dtype=float, order="C"):
    return _empty(shape, dtype or float, order or "C")


@routine
def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    order = "F" if prototype.flags.f_contiguous and not prototype.flags.c_contiguous else "C"
    return _empty(*_like(prototype, dtype, shape), order)


def _filled(value):
    def create(shape, dtype=float, order="C"):
        made = _empty(shape, dtype or float, order or "C")
        made.fill(value)
        return made

    def create_like(a, dtype=None, order="K", subok=None, shape=None):
        made = empty_like(a, dtype=dtype, shape=shape)
        made.fill(value)
        return made

    return create, create_like


for _name, _value in {"zeros": 0, "ones": 1}.items():
    for _suffix, _create in zip(("", "_like"), _filled(_value), strict=True):
        _create.__name__ = _name + _suffix
        routine(_create)


@routine
def full(shape, fill_value, dtype=None, order="C"):
    if dtype is None:
        has_one = isinstance(fill_value, DeviceArray)
        dtype = fill_value.dtype if has_one else numpy.array(fill_value).dtype
    made = _empty(shape, dtype)
    made.fill(fill_value)
    return made


@routine
def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    made = empty_like(a, dtype=dtype, shape=shape)
    made.fill(fill_value)
    return made


@routine
def eye(N, M=None, k=0, dtype=float, order="C"):
    counters.launch("eye", 2)
    return DeviceArray(numpy.eye(N, M, k or 0, dtype or float))


@routine
def arange(start, stop=None, step=1, dtype=None):
    ends = (0, start) if stop is None else (start, stop)
    made = DeviceArray(numpy.arange(*ends, step or 1, dtype))
    if made.size:
        counters.launch("arange")
    return made


def _array(obj, dtype, copy, order):
    if isinstance(obj, DeviceArray):
        if dtype is None or numpy.dtype(dtype) == obj.dtype:
            if not copy:
                return obj
            return obj.copy(order if order in ("C", "F") else "K")
        return obj.astype(dtype)
    if isinstance(obj, list | tuple) and any(isinstance(x, DeviceArray) for x in obj):
        return stack([_array(x, dtype, False, order) for x in obj])
    return _from_host(numpy.array(obj, dtype=dtype))


@routine
def array(obj, dtype=None, copy=True, order="K", subok=None, ndmin=None, blocking=None):
    return _array(obj, dtype, True if copy is None else copy, order)


@routine
def asarray(a, dtype=None, order=None, blocking=None, copy=None):
    return _array(a, dtype, bool(copy), order)


@routine
def ascontiguousarray(a, dtype=None):
    _bare(a)
    if a.flags.c_contiguous and dtype in (None, a.dtype):
        return a
    counters.launch("copy")
    return DeviceArray(numpy.ascontiguousarray(a._values, dtype))


@routine
def asnumpy(a, stream=None, order="C", out=None, blocking=True):
    return a.get() if isinstance(a, DeviceArray) else numpy.asarray(a)


# --- reductions, each a kernel


def _reduction(name, needs_order=False):
    """The method and the function; what NumPy returns is what CuPy returns, to rounding."""

    def method(self, *args, out=None, **options):
        if needs_order and not self.size:
            raise ValueError(f"zero-size array to reduction operation cupy_{name} without identity")
        options = {key: value for key, value in options.items() if value is not None}
        counters.launch(name)
        with numpy.errstate(all="ignore"):
            found = getattr(self._values, name)(*args, **options)
        if out is None:
            return DeviceArray(found)
        with numpy.errstate(all="ignore"):
            out._values[...] = found
        return out

    method.__name__ = name
    return held_to(NDARRAY[name])(method)


def _function_of(name):
    def call(a, *args, **options):
        _bare(a)
        return getattr(a, name)(*args, **options)

    call.__name__ = name
    return call


for _name in ("sum", "prod", "mean", "var", "std", "all", "any"):
    setattr(DeviceArray, _name, _reduction(_name))
for _name in ("max", "min", "argmax", "argmin"):
    setattr(DeviceArray, _name, _reduction(_name, needs_order=True))
for _name in ("sum", "prod", "mean", "var", "std", "max", "min", "argmax", "argmin", "all", "any"):
    routine(_function_of(_name))


def _numpy_reduction(name):
    def call(a, *args, **options):
        counters.launch(name)
        with numpy.errstate(all="ignore"):
            return DeviceArray(getattr(numpy, name)(_bare(a), *args, **options))

    call.__name__ = name
    return call


for _name in ("nanmax", "nanmin", "count_nonzero"):
    routine(_numpy_reduction(_name))


def running(values, axis):
    """Running sums as a device makes them: by halves within a chunk, then chunk after chunk."""
    sums = numpy.moveaxis(values, axis, 0).copy()
    for begin in range(0, len(sums), CHUNK):
        chunk, distance = sums[begin : begin + CHUNK], 1
        while distance < len(chunk):
            chunk[distance:] = chunk[distance:] + chunk[:-distance]
            distance *= 2
        if begin:
            chunk += sums[begin - 1]
    return numpy.moveaxis(sums, 0, axis)


def _cumsum(self, axis=None, dtype=None, out=None):
    if out is not None:
        raise NotImplementedError("cumsum(out=): the double does not have it yet")
    counters.launch("cumsum", 2)
    values = self._values.astype(dtype or numpy.zeros(0, self.dtype).cumsum().dtype)
    return DeviceArray(running(values.ravel() if axis is None else values, axis or 0))


DeviceArray.cumsum = held_to(NDARRAY["cumsum"])(_cumsum)
routine(_function_of("cumsum"))


# --- products


def _dot(a, b, out=None):
    """``a @ b`` by cuBLAS; what is in neither order is copied first."""
    with numpy.errstate(all="ignore"):
        if out is None:
            found = numpy.dot(a._values, b._values)
        else:
            found = numpy.dot(a._values, b._values).astype(out.dtype)
    if found.size:
        counters.launch("product")
    for x in (a, b):
        if x.ndim == 2 and not (x.flags.c_contiguous or x.flags.f_contiguous):
            counters.launch("copy")
    if out is None:
        return DeviceArray(found)
    shares = any(numpy.may_share_memory(out._values, x._values) for x in (a, b))
    if shares or not out.flags.c_contiguous:  # there is a result apart, which is copied
        counters.launch("copy")
    out._values[...] = found
    return out


@routine
def dot(a, b, out=None):
    if out is not None and not out.flags.c_contiguous:
        raise ValueError("Output array must be C-contiguous")
    if not a.ndim or not b.ndim:
        return ufunc("multiply")(a, b, out=out)
    return _dot(a, b, out)


@routine
def matmul(*args, out=None, **options):
    a, b = args
    _bare(a), _bare(b)
    if max(a.ndim, b.ndim) > 2:
        counters.launch("product")
        found = numpy.matmul(a._values, b._values)
        if out is None:
            return DeviceArray(found)
        out._values[...] = found
        return out
    if out is not None and out.shape != (*a.shape[:-1], *b.shape[1:]):
        raise ValueError(f"cupy.matmul: {a.shape} @ {b.shape} does not fit out {out.shape}")
    if a.shape[-1] != b.shape[0]:
        raise ValueError("Axis dimension mismatch")
    return _dot(a, b, out)


def _matmul(self, other):
    return matmul(self, other) if isinstance(other, DeviceArray) else NotImplemented


DeviceArray.__matmul__ = _matmul
DeviceArray.dot = lambda self, b, out=None: dot(self, b, out)


# --- views, and copies where there can be none


for _name in ("reshape", "ravel", "transpose", "swapaxes", "squeeze"):
    routine(_function_of(_name))


def _view(name):
    def call(a, *args, **options):
        return DeviceArray(getattr(numpy, name)(_bare(a), *args, **options))

    call.__name__ = name
    return call


for _name in ("expand_dims", "moveaxis", "rollaxis"):
    routine(_view(_name))


@routine
def broadcast_to(array, shape):
    return DeviceArray(numpy.broadcast_to(_bare(array), shape))


def _joined(values, number):
    """CuPy copies one by one up to eight arrays, and more by one kernel."""
    counters.launch("concatenate", number if number <= 8 else 1)
    return DeviceArray(values)


@routine
def concatenate(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    if any(not isinstance(x, DeviceArray) for x in tup):
        raise TypeError("Only cupy arrays can be concatenated")
    if out is not None:
        raise NotImplementedError("concatenate(out=): the double does not have it yet")
    found = numpy.concatenate([x._values for x in tup], axis or 0, dtype=dtype)
    return _joined(found, len(tup))


@routine
def stack(tup, axis=0, out=None, *, dtype=None, casting="same_kind"):
    if any(not isinstance(x, DeviceArray) for x in tup):
        raise TypeError("Only cupy arrays can be concatenated")
    return _joined(numpy.stack([x._values for x in tup], axis or 0, dtype=dtype), len(tup))


@routine
def split(ary, indices_or_sections, axis=0):
    return [DeviceArray(x) for x in numpy.split(_bare(ary), indices_or_sections, axis or 0)]


# --- choosing, sorting, counting


@routine
def where(condition, x=None, y=None):
    if x is None:
        raise NotImplementedError("where(condition): the double does not have it yet")
    condition = condition.astype(bool, copy=False)
    types, _ = ufunc("add")._chosen(tuple(_kind(v) for v in (x, y)), None)
    counters.launch("where")
    values = (v if isinstance(v, int | float) else _bare(v) for v in (x, y))
    with numpy.errstate(all="ignore"):
        values = [numpy.asarray(v).astype(types[0]) for v in values]
    return DeviceArray(numpy.where(condition._values, *values))


@routine
def clip(a, a_min, a_max, out=None):
    counters.launch("clip")
    low, high = (v if v is None or isinstance(v, int | float) else _bare(v) for v in (a_min, a_max))
    found = DeviceArray(numpy.clip(_bare(a), low, high))
    if out is None:
        return found
    out._values[...] = found._values
    return out


DeviceArray.clip = lambda self, min=None, max=None, out=None: clip(self, min, max, out)


@routine
def take(a, indices, axis=None, out=None):
    if out is not None:
        raise NotImplementedError("take(out=): the double does not have it yet")
    values = _bare(a)
    if not isinstance(indices, DeviceArray | int | numpy.integer):
        indices = _from_host(numpy.asarray(indices, dtype=int))
    places = indices._values if isinstance(indices, DeviceArray) else indices
    number = values.size if axis is None else values.shape[axis]
    counters.launch("take")
    return DeviceArray(values.take(places % number if number else places, axis))


DeviceArray.take = lambda self, indices, axis=None, out=None: take(self, indices, axis, out)


@routine
def searchsorted(a, v, side="left", sorter=None):
    counters.launch("searchsorted", 2)
    if not isinstance(v, DeviceArray):
        v = asarray(v)
    return DeviceArray(_bare(a).searchsorted(v._values, side or "left"))


DeviceArray.searchsorted = lambda self, v, side="left", sorter=None: searchsorted(self, v, side)


def _argsort(self, axis=-1, kind=None):
    if kind not in (None, "stable"):
        raise ValueError("Unsupported kind of sort")
    counters.launch("argsort", 2)
    return DeviceArray(self._values.argsort(-1 if axis is None else axis, kind="stable"))


DeviceArray.argsort = held_to(NDARRAY["argsort"])(_argsort)
routine(_function_of("argsort"))


def _reads_its_size(name):
    def call(a, *args, **options):
        values = _bare(a)
        counters.wait(name)
        counters.launch(name, 4)
        args = [_bare(x) if isinstance(x, DeviceArray) else x for x in args]
        options = {k: _bare(x) if isinstance(x, DeviceArray) else x for k, x in options.items()}
        found = getattr(numpy, name)(values, *args, **options)
        return tuple(map(DeviceArray, found)) if isinstance(found, tuple) else DeviceArray(found)

    call.__name__ = name
    return call


for _name in ("flatnonzero", "nonzero", "unique"):
    routine(_reads_its_size(_name))


@routine
def bincount(x, weights=None, minlength=None):
    counters.wait("bincount")
    counters.launch("bincount", 4)
    weights = None if weights is None else _bare(weights)
    return DeviceArray(numpy.bincount(_bare(x), weights, minlength or 0))


@routine
def round(a, decimals=0, out=None):
    counters.launch("round")
    return DeviceArray(_bare(a).round(decimals or 0))


DeviceArray.round = lambda self, decimals=0, out=None: round(self, decimals)


@routine
def shares_memory(a, b, max_work=None):
    return numpy.shares_memory(_bare(a), _bare(b))


@routine
def may_share_memory(a, b, max_work=None):
    return numpy.may_share_memory(_bare(a), _bare(b))


@routine
def ndim(a):
    return a.ndim if hasattr(a, "ndim") else numpy.ndim(a)
