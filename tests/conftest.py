"""What every test gets: no screen, and both answers of the switch where there is a GPU."""

import itertools
import os
import sys

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


def pytest_collection_modifyitems(items):
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        try:
            to_gpu(numpy.zeros(1))
        except RuntimeError as error:
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request, monkeypatch):
    """Runs the test on NumPy, and once more on CuPy where there is a device."""
    monkeypatch.setattr(config, "GPU", request.param == "gpu")
    return request.param


@pytest.fixture
def waits(monkeypatch):
    """``np`` stands for a strict double of CuPy; a list of what the host has waited for since."""
    monkeypatch.setitem(sys.modules, "cupy", cupy_double.module())
    np_module._cupy.cache_clear()
    monkeypatch.setattr(config, "GPU", True)
    to_gpu(0)  # looking for a device is waiting too
    cupy_double.DeviceArray.waits.clear()
    yield cupy_double.DeviceArray.waits
    np_module._cupy.cache_clear()
