"""A small double of CuPy: its arrays hold NumPy's, and refuse what CuPy refuses.

It is strict where NumPy is lenient: a device array never turns into a NumPy array silently, an
operation takes no NumPy array, a function that is not in ``FUNCTIONS`` is not there. The sums of
``add.reduceat`` are CuPy's, and every time the host would wait for the device is counted.

Threads stand for processes of one GPU each. What NCCL is asked to transfer is there once the stream
that computes has waited for it, and not a number before.

It follows the sources of CuPy 14. Of time, rounding and atomics it says nothing.
"""

import ctypes
import functools
import importlib.machinery
import itertools
import operator
import threading
import types

import numpy

from tests.builders import PATIENCE

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
        _device.asked += 1
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
    _device.asked += 1
    if out is not None:
        options["out"] = _host(out)
    result = function(*map(_given, args), **options)
    return DeviceArray(result) if out is None else out


def _operator(name):
    def operate(self, *others):
        _device.asked += 1
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
        _device.asked += 1
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


# ---- streams ----


class _Device(threading.local):
    """Of each thread: its current device, what it was asked to compute, what its streams did."""

    def __init__(self):
        self.number, self.asked, self.log = 0, 0, []
        self.group = None  # the calls of NCCL since groupStart


_device = _Device()


def log():
    """What the streams of this thread have done: (stream, what, how much of what)."""
    return _device.log


class Event:
    """A place in what a stream was asked to do."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.place = None

    def synchronize(self):
        DeviceArray.waits.append("event")
        self.place()


class Stream:
    """The stream that computes does so at once; another one when somebody waits for it."""

    numbers = itertools.count(1)
    by_pointer = {}

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.name = "computes" if null else "transfers" if non_blocking else "blocks"
        self.ptr = 0 if null else next(self.numbers)
        self.left = []  # to do
        self.knows = 0  # how much the stream that computes had been asked for by then
        self.by_pointer[self.ptr] = self

    def record(self, event=None):
        event = Event() if event is None else event
        if self is Stream.null:
            event.asked, event.place = _device.asked, lambda: None
        else:
            event.asked, event.place = 0, functools.partial(self._run, len(self.left))
        _device.log.append((self.name, "record"))
        return event

    def wait_event(self, event):
        _device.log.append((self.name, "wait"))
        self.knows = max(self.knows, event.asked)
        if self is Stream.null:
            event.place()
        else:
            self.left.append(event.place)

    def synchronize(self):
        DeviceArray.waits.append("stream")
        self._run(len(self.left))

    def _run(self, number):
        while number and self.left:
            number -= 1
            self.left.pop(0)()


Stream.null = Stream(null=True)


class Device:
    """One of ``runtime.getDeviceCount()``."""

    def __init__(self, device=None):
        self.id = _device.number if device is None else int(device)

    def use(self):
        _device.number = self.id
        return self


# ---- NCCL ----

DTYPES = {2: "int32", 4: "int64", 7: "float32", 8: "float64"}  # as nccl.h numbers them


class _World:
    """What the communicators of one id were called for, in order."""

    def __init__(self):
        self.calls, self.news = [], threading.Condition()

    def call(self, number, rank, asked, values):
        """Of a process: its call number so and so, and what it sends."""
        with self.news:
            while len(self.calls) <= number:
                self.calls.append({})
            self.calls[number][rank] = asked, values
            self.news.notify_all()

    def sent(self, number, size):
        """By all, once all have called."""
        call = self.calls[number]
        with self.news:
            if not self.news.wait_for(lambda: len(call) == size, PATIENCE):
                raise TimeoutError(f"call {number}: {sorted(call)} of {size} have called")
        asked = {asked for asked, _ in call.values()}
        assert len(asked) == 1, f"call {number} differs: {asked}"
        return [call[rank][1] for rank in range(size)]


class NcclCommunicator:
    """One of ``ndev`` of an id."""

    worlds = {}

    def __init__(self, ndev, commId, rank, config=None):
        if not isinstance(commId, bytes) or len(commId) != 128:
            raise TypeError("commId: expected 128 bytes")
        self.world = self.worlds.setdefault(commId, _World())
        self.ndev, self.rank, self.numbers = ndev, rank, itertools.count()
        self.device = _device.number

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        assert op == 0  # NCCL_SUM
        self._ask("allReduce", sendbuf, recvbuf, count, datatype, None, stream)

    def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream):
        self._ask("broadcast", sendbuff, recvbuff, count, datatype, root, stream)

    def _ask(self, what, source, target, count, datatype, root, stream):
        where, number = Stream.by_pointer[stream], next(self.numbers)
        assert where is not Stream.null and _device.number == self.device
        assert where.knows == _device.asked, f"{what}: the stream has not waited for what it sends"
        asked = what, count, datatype, root

        def begin():
            _device.log.append((where.name, what, count, DTYPES[datatype]))
            self.world.call(number, self.rank, asked, _memory(source, count, datatype).copy())
            target_of_all = _memory(target, count, datatype)
            target_of_all[...] = -1 if target_of_all.dtype.kind == "i" else numpy.nan
            where.left.append(end)

        def end():
            sent = self.world.sent(number, self.ndev)
            result = functools.reduce(operator.add, sent) if root is None else sent[root]
            _memory(target, count, datatype)[...] = result

        if _device.group is None:
            begin()
        else:
            _device.group.append(begin)


def _memory(address, count, datatype):
    """The array that lies there."""
    dtype = numpy.dtype(DTYPES[datatype])
    if not count:
        return numpy.empty(0, dtype)
    whole = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    return numpy.frombuffer(whole, dtype)


def _group_start():
    _device.group = []


def _group_end():
    group, _device.group = _device.group, None
    for begin in group:
        begin()


class Nccl:
    """Lets ``import cupy.cuda.nccl`` find NCCL; ``import cupy`` alone does not bring it.

    Args:
        available: whether the library is there.
    """

    def __init__(self, available=True):
        self.available = available

    def find_spec(self, name, path=None, target=None):
        is_it = name == "cupy.cuda.nccl"
        return importlib.machinery.ModuleSpec(name, self) if is_it else None

    def create_module(self, spec):
        nccl = types.ModuleType(spec.name)
        nccl.available = self.available
        if self.available:
            nccl.NcclCommunicator, nccl.NCCL_SUM = NcclCommunicator, 0
            nccl.get_unique_id = lambda: next(Stream.numbers).to_bytes(128)
            nccl.groupStart, nccl.groupEnd = _group_start, _group_end
            for number, dtype in DTYPES.items():
                setattr(nccl, f"NCCL_{dtype.upper()}", number)
        return nccl

    def exec_module(self, module):
        """Nothing is left to do."""


def cuda():
    """What ``cupy.cuda`` is."""
    module = types.ModuleType("cupy.cuda")
    module.__path__ = []  # a package
    module.runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    module.Device, module.Event, module.Stream = Device, Event, Stream
    module.get_current_stream = lambda: Stream.null
    return module


def module():
    """What ``import cupy`` gives."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.cuda = cuda()
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
