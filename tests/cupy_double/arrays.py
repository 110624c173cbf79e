"""The array of the double: a NumPy array inside that nobody reaches by chance."""

import operator

import numpy

from tests.cupy_double.counters import counters
from tests.cupy_double.signatures import NDARRAY
from tests.cupy_double.ufuncs import SCALARS, Ufunc, ufunc


class Flags:
    """CuPy knows neither ``writeable`` nor ``aligned``."""

    __slots__ = ("c_contiguous", "f_contiguous", "fnc", "forc", "owndata")

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.fnc, self.forc, self.owndata = flags.fnc, flags.forc, flags.owndata


class Memory:
    """What is called ``ndarray.data``: where the elements lie."""

    __slots__ = ("ptr",)

    def __init__(self, ptr):
        self.ptr = ptr


class DeviceArray:
    """What is called ``cupy.ndarray``."""

    waits = counters.waits  # what the host waited for, in order
    __hash__ = None
    __slots__ = ("_values",)

    def __init__(self, values):
        self._values = numpy.asarray(values)

    shape, dtype, ndim, size, itemsize, strides, nbytes = (
        property(lambda self, name=name: getattr(self._values, name))
        for name in ("shape", "dtype", "ndim", "size", "itemsize", "strides", "nbytes")
    )
    T = property(lambda self: DeviceArray(self._values.T))
    base = property(lambda self: self._base())
    flags = property(lambda self: Flags(self._values.flags))
    data = property(lambda self: Memory(self._values.__array_interface__["data"][0]))

    def _base(self):
        """The array that owns the memory, of a view; CuPy has it as NumPy has."""
        base = self._values.base
        return DeviceArray(base) if isinstance(base, numpy.ndarray) else None

    def __getattr__(self, name):
        if name in NDARRAY:
            raise NotImplementedError(f"cupy.ndarray.{name}: the double does not have it yet")
        raise AttributeError(f"cupy.ndarray has no {name}")

    # --- to the host, which waits

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def _fetch(self, why):
        counters.wait(why)
        counters.download(self.nbytes)
        return self._values.copy()

    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy on the CPU."""
        found = self._fetch("get")
        if out is None:
            return found
        if not isinstance(out, numpy.ndarray) or out.dtype != self.dtype:
            raise TypeError(f"get: expected out of {self.dtype}, got {out!r}")
        out[...] = found
        return out

    def item(self):
        return self._fetch("item").item()

    def tolist(self):
        return self._fetch("tolist").tolist()

    def __bool__(self):
        return bool(self._fetch("bool"))

    def __int__(self):
        return int(self._fetch("int"))

    def __index__(self):
        return operator.index(self._fetch("int")[()])

    def __float__(self):
        return float(self._fetch("float"))

    def __str__(self):
        return str(self._fetch("str"))

    def __format__(self, spec):
        return format(self._fetch("format")[()], spec)

    def __reduce__(self):
        return _from_host, (self._fetch("pickle"),)

    def __repr__(self):  # the real one waits; an assertion that fails should not
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    # --- on the device

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __array_ufunc__(self, function, method, *inputs, **options):
        """Of a NumPy number on the left of an operator; a NumPy array there is refused."""
        if method != "__call__":
            return NotImplemented
        if "out" in options:
            (options["out"],) = options["out"]
        return ufunc(function.__name__)(*inputs, **options)

    def __array_function__(self, function, types, args, options):
        from tests.cupy_double.module import module

        found = getattr(module(), function.__name__, None)
        return NotImplemented if found is None else found(*args, **options)

    def __getitem__(self, index):
        places, arrays, masks = _places(self.shape, index)
        found = self._values[places]
        if arrays:
            if masks:
                counters.wait("mask")
            counters.launch("take", 1 if arrays == 1 else arrays + 2)
        return DeviceArray(found)

    def __setitem__(self, index, value):
        places, arrays, masks = _places(self.shape, index)
        if arrays:
            self._scatter(places, value, arrays, masks)
            return
        parts = places if isinstance(places, tuple) else (places,)
        target = self._values[parts if Ellipsis in parts else (*parts, ...)]  # a view in any case
        if not isinstance(value, DeviceArray):
            DeviceArray(target).fill(value)
            return
        source = value._values
        if source.shape == target.shape and source.strides == target.strides:
            if value.data.ptr == target.__array_interface__["data"][0]:
                return
            if target.flags.c_contiguous and source.dtype == target.dtype:
                counters.launch("copy")
                target[...] = source
                return
        _copy(source, target)

    def _scatter(self, places, value, arrays, masks):
        if masks:
            counters.wait("mask")
        if not isinstance(value, DeviceArray):
            value = _from_host(numpy.asarray(value, dtype=self.dtype))
        elif value.dtype != self.dtype:
            counters.launch("astype")
        counters.launch("scatter", 1 if arrays == 1 else arrays + 2)
        with numpy.errstate(all="ignore"):
            self._values[places] = value._values
            written = self._values[places]
            same = value._values.astype(self.dtype)
        if not numpy.array_equal(written, numpy.broadcast_to(same, written.shape), equal_nan=True):
            raise RuntimeError(
                "an index occurs twice, with values that differ: a device writes them in any order"
            )

    def fill(self, value):
        if isinstance(value, DeviceArray):
            if value.shape != ():
                raise ValueError("non-scalar cupy.ndarray cannot be used for fill")
            value = value._values
        value = numpy.asarray(value, dtype=self.dtype)
        if value.shape != ():
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if self.size:
            counters.launch("fill")
        self._values[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if numpy.dtype(dtype) == self.dtype and not copy:
            return self
        if self.size:
            counters.launch("astype")
        with numpy.errstate(all="ignore"):
            return DeviceArray(self._values.astype(dtype, order=order))

    def copy(self, order="C"):
        if self.size:
            counters.launch("copy")
        return DeviceArray(self._values.copy(order))

    def view(self, dtype=None, type=None):
        return DeviceArray(self._values.view() if dtype is None else self._values.view(dtype))

    def reshape(self, *shape, order="C", copy=None):
        return self._seen(self._values.reshape(*shape, order=order))

    def ravel(self, order="C"):
        return self._seen(self._values.ravel(order))

    def flatten(self, order="C"):
        return self.copy(order).ravel()

    def transpose(self, *axes):
        return DeviceArray(self._values.transpose(*axes))

    def swapaxes(self, axis1, axis2):
        return DeviceArray(self._values.swapaxes(axis1, axis2))

    def squeeze(self, axis=None):
        return DeviceArray(self._values.squeeze(axis))

    def _seen(self, values):
        """A view, or a copy where NumPy has made one."""
        if values.size and not numpy.may_share_memory(values, self._values):
            counters.launch("copy")
        return DeviceArray(values)


def _from_host(values):
    """A copy on the device of what is on the host."""
    counters.upload(values.nbytes)
    return DeviceArray(values.copy())


def _copy(source, target):
    """``target[...] = source`` by one kernel, two where they may overlap."""
    if target.size:
        counters.launch("copy", 2 if numpy.may_share_memory(source, target) else 1)
    while source.ndim > target.ndim and source.shape[0] == 1:
        source = source[0]
    with numpy.errstate(all="ignore"):
        target[...] = source


def _places(shape, index):
    """The index for NumPy, how many arrays are in it, and whether one of them is a mask.

    CuPy does not look at what an array asks for: numbers that are out of range wrap around. An
    array on the host goes over first.
    """
    parts = index if isinstance(index, tuple) else (index,)
    used = 0
    for part in parts:
        if part is None or part is Ellipsis:
            continue
        is_mask = getattr(part, "dtype", None) == numpy.bool_
        used += part.ndim if is_mask else 1
    axis, places, arrays, masks = 0, [], 0, False
    for part in parts:
        if part is None or isinstance(part, slice):
            places.append(part)
            axis += part is not None
        elif part is Ellipsis:
            places.append(part)
            axis += len(shape) - used
        elif isinstance(part, DeviceArray | numpy.ndarray | list):
            if not isinstance(part, DeviceArray):
                part = _from_host(numpy.asarray(part, dtype=None if len(part) else int))
            values, arrays = part._values, arrays + 1
            if values.dtype == numpy.bool_:
                masks = True
                axis += values.ndim
            elif values.dtype.kind not in "iu":
                raise IndexError(f"arrays used as indices must be of integers, got {values.dtype}")
            else:
                values = values % shape[axis] if shape[axis] else values
                axis += 1
            places.append(values)
        else:
            places.append(operator.index(part))
            axis += 1
    return (tuple(places) if isinstance(index, tuple) else places[0]), arrays, masks


def _operator(name, swapped=False, in_place=False):
    def operate(self, other):
        if isinstance(other, numpy.ndarray) and not other.ndim:
            other = other[()]
        elif not isinstance(other, (DeviceArray, numpy.ndarray, *SCALARS)):
            return NotImplemented
        function = ufunc(name)
        if in_place:
            return function(self, other, self)
        return function(other, self) if swapped else function(self, other)

    return operate


OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}
COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}
for _name, _function in OPERATORS.items():
    setattr(DeviceArray, f"__{_name}__", _operator(_function))
    setattr(DeviceArray, f"__r{_name}__", _operator(_function, swapped=True))
    setattr(DeviceArray, f"__i{_name}__", _operator(_function, in_place=True))
for _name, _function in COMPARISONS.items():
    setattr(DeviceArray, f"__{_name}__", _operator(_function))
for _name, _function in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
    setattr(DeviceArray, f"__{_name}__", lambda self, name=_function: ufunc(name)(self))
Ufunc.array = DeviceArray
