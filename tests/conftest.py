"""What every test gets: no screen, and both answers of the switch, on a GPU or on its double."""

import functools
import itertools
import os
import sys
import warnings

# The products of the tests are tiny; more threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib
import numpy
import pytest
from hypothesis import settings

from common import config
from common import np as np_module
from common.np import to_gpu
from tests import cupy_double

matplotlib.use("Agg")
config.GPU = False  # whatever the environment says: a test asks for CuPy by the fixture below

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    """What asks for a generator without a seed gets one of a series, the same in every run."""
    seeded, series = numpy.random.default_rng, itertools.count(1 << 20)

    def default_rng(seed=None):
        return seeded(next(series) if seed is None else seed)

    monkeypatch.setattr(numpy.random, "default_rng", default_rng)


@functools.cache
def has_device():
    """Whether CuPy is here and a device answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's at its import are no test's
        try:
            to_gpu(numpy.zeros(1))
        except RuntimeError:
            return False
    return True


@pytest.fixture(autouse=True)
def _device(request, monkeypatch):
    """For a test marked ``gpu``: a device, or where there is none the double of CuPy.

    With ``TIMELAYERS_DOUBLE=0`` a test that would get the double fails.
    """
    if request.node.get_closest_marker("gpu") is None or has_device():
        yield
        return
    if os.environ.get("TIMELAYERS_DOUBLE") == "0":
        pytest.fail("no CUDA device answers, and TIMELAYERS_DOUBLE=0 asks for one")
    yield from with_double(monkeypatch)


def with_double(monkeypatch):
    """Inside, CuPy is its double; a list of what the host has waited for since."""
    monkeypatch.setitem(sys.modules, "cupy", cupy_double.module())
    np_module._cupy.cache_clear()
    to_gpu(0)  # looking for a device is waiting too
    cupy_double.counters.clear()
    yield cupy_double.counters.waits
    np_module._cupy.cache_clear()


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request, monkeypatch):
    """Runs the test on NumPy, and once more on CuPy or its double."""
    monkeypatch.setattr(config, "GPU", request.param == "gpu")
    return request.param


@pytest.fixture
def waits(monkeypatch):
    """``np`` stands for the double of CuPy, device or not; what the host has waited for since."""
    monkeypatch.setattr(config, "GPU", True)
    yield from with_double(monkeypatch)
