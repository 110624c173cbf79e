"""Streams, events, devices and NCCL of the double.

Threads stand for processes of one GPU each. What NCCL is asked to transfer is there once the stream
that computes has waited for it, and not a number before.
"""

import ctypes
import functools
import importlib
import importlib.machinery
import itertools
import operator
import threading
import types

import numpy

from tests.builders import PATIENCE
from tests.cupy_double.counters import counters


class _Device(threading.local):
    """Of each thread: its current device, what its streams did."""

    def __init__(self):
        self.number, self.log = 0, []
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
        counters.wait("event")
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
            event.asked, event.place = counters.computed, lambda: None
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
        counters.wait("stream")
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

    @property
    def attributes(self):
        """Some of CUDA's, of the device that ``tests.cuda_on_cpu`` stands for."""
        header = importlib.import_module("tests.cuda_on_cpu")
        return {
            "MultiProcessorCount": header.MULTIPROCESSORS,
            "MaxSharedMemoryPerBlockOptin": header.SHARED_MEMORY,
            "CooperativeLaunch": 1,
        }


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
        assert where.knows == counters.computed, (
            f"{what}: the stream has not waited for what it sends"
        )
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
