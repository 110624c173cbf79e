"""A device for the tests of the CUDA kernels: NumPy's arrays, and launches on the CPU."""

import functools
import types

import numpy as np

from common.kernels import device
from tests.cuda_on_cpu import LaunchError, RawModule

SOURCE = device.source
CACHES = ["_module", "_kernel", "_window_kernel", "_attributes", "_counters", "source", "_wanted"]


class NumpyDevice:
    """What ``common.kernels.device`` asks of CuPy.

    Args:
        multiprocessors: how many.
        memory: bytes of shared memory for a block.
        descending: whether the threads of a block run from the last to the first.
    """

    def __init__(self, multiprocessors=3, memory=100_000, descending=False):
        attributes = {
            "CooperativeLaunch": int(memory > 0),
            "MaxSharedMemoryPerBlockOptin": memory,
            "MultiProcessorCount": multiprocessors,
        }
        found = types.SimpleNamespace(id=0, attributes=attributes)
        self.cuda = types.SimpleNamespace(Device=lambda device=None: found)
        self.RawModule = type("Module", (RawModule,), {"descending": descending})

    def __getattr__(self, name):
        return getattr(np, name)


def use(monkeypatch, **sizes):
    """``common.kernels.device`` works on such a device from now on."""
    for name in CACHES:
        getattr(device, name).cache_clear()
    monkeypatch.setattr(device, "np", NumpyDevice(**sizes))


def with_fault(monkeypatch, old, new):
    """Every text that is compiled from now on has ``new`` in place of ``old``."""

    @functools.cache
    def source(file):
        text = SOURCE(file)
        if old not in text:
            raise ValueError(f"{file} has no {old!r} any more")
        return text.replace(old, new)

    monkeypatch.setattr(device, "source", source)


SEEN = (LaunchError, AssertionError)
