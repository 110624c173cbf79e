"""The switch between NumPy and CuPy, tried here with a stand-in for CuPy."""

import configparser
import os
import runpy
import sys
import types
from pathlib import Path

import numpy
import pytest

from common import config
from common import np as np_module
from common.np import GPU, memory_address, np, to_cpu, to_gpu
from tests import cupy_double


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's double with one device, except that its zeros are the text ``"on the GPU"``."""
    module = cupy_double.module()
    module.__version__ = "99.0"
    module.cuda.runtime.getDeviceCount = lambda: module.devices
    module.devices = 1
    module.zeros = module.asarray = lambda *args, **options: "on the GPU"
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(config, "GPU", False)
    np_module._cupy.cache_clear()
    yield module
    np_module._cupy.cache_clear()


def test_without_the_switch_np_is_numpy(monkeypatch):
    monkeypatch.setattr(config, "GPU", False)
    assert np.zeros is numpy.zeros
    assert isinstance(np.zeros(3), numpy.ndarray)
    assert np.random is numpy.random


def test_the_switch_can_be_flipped_at_run_time_and_back(cupy, monkeypatch):
    assert isinstance(np.zeros(3), numpy.ndarray)
    monkeypatch.setattr(config, "GPU", True)
    assert np.zeros(3) == "on the GPU"
    monkeypatch.setattr(config, "GPU", False)
    assert isinstance(np.zeros(3), numpy.ndarray)


def test_the_switch_that_was_imported_says_what_it_says_now(monkeypatch):
    for value in (True, False):
        monkeypatch.setattr(config, "GPU", value)
        assert bool(GPU) is value
        assert repr(GPU) == repr(value)


def test_to_gpu_works_whatever_the_switch_says(cupy):
    assert to_gpu(numpy.zeros(3)) == "on the GPU"


def test_without_cupy_the_error_names_what_to_install(cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy now raises ImportError
    monkeypatch.setattr(config, "GPU", True)
    with pytest.raises(RuntimeError, match=r"CuPy is not installed.*gpu-cuda12.*gpu-cuda13"):
        np.zeros(3)
    monkeypatch.setattr(config, "GPU", False)
    assert np.zeros(3).tolist() == [0, 0, 0]


def test_cupy_without_a_driver_is_told_apart_from_no_cupy(cupy, monkeypatch):
    def fails():
        raise OSError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDeviceCount = fails
    monkeypatch.setattr(config, "GPU", True)
    with pytest.raises(RuntimeError) as error:
        np.zeros(3)
    assert "CuPy 99.0 is installed" in str(error.value)
    assert "driver does not answer (cudaErrorInsufficientDriver)" in str(error.value)


def test_cupy_with_a_driver_but_no_device_is_told_too(cupy, monkeypatch):
    cupy.devices = 0
    monkeypatch.setattr(config, "GPU", True)
    with pytest.raises(RuntimeError, match="no CUDA device"):
        np.zeros(3)


@pytest.mark.parametrize(
    ("operation", "what", "library"),
    [("__add__", "elementwise kernel", "nvrtc"), ("__matmul__", "matrix product", "cublas")],
)
def test_a_cuda_library_that_is_missing_is_named_with_what_to_install(
    cupy, monkeypatch, operation, what, library
):
    def fails(self, other):
        raise ImportError(f"failed to load lib{library}.so.12:\n  no such file")

    monkeypatch.setattr(cupy_double.DeviceArray, operation, fails)
    monkeypatch.setattr(config, "GPU", True)
    with pytest.raises(RuntimeError) as error:
        np.zeros(3)
    assert f"its first {what} fails (ImportError: failed to load lib{library}" in str(error.value)
    assert "gpu-cuda12" in str(error.value)
    assert "[ctk]" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_device_that_computes_nonsense_is_refused(cupy, monkeypatch):
    monkeypatch.setattr(cupy_double.DeviceArray, "__matmul__", lambda self, other: self)
    monkeypatch.setattr(config, "GPU", True)
    with pytest.raises(RuntimeError, match=r"its first matrix product fails \(1 for 2\)"):
        np.zeros(3)


def test_a_cupy_that_cannot_be_imported_is_told_apart_from_no_cupy(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('====\\nlibcudart is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    np_module._cupy.cache_clear()
    with pytest.raises(
        RuntimeError, match=r"CuPy is installed, but cannot be imported .*libcudart"
    ):
        to_gpu(0)


def test_the_extras_bring_the_cuda_libraries():
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    extras = parser["options.extras_require"]
    for cuda in ("12", "13"):
        assert extras[f"gpu-cuda{cuda}"].strip() == f"cupy-cuda{cuda}x[ctk]>=14.0"


def test_a_failed_probe_is_repeated_so_that_a_repair_is_noticed(cupy, monkeypatch):
    monkeypatch.setattr(config, "GPU", True)
    cupy.devices = 0
    with pytest.raises(RuntimeError):
        np.zeros(3)
    cupy.devices = 1
    assert np.zeros(3) == "on the GPU"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), (" YES ", True), ("0", False), ("off", False), ("", False)],
)
def test_the_environment_sets_the_switch(monkeypatch, text, expected):
    monkeypatch.setenv("GPU", text)
    assert runpy.run_path(config.__file__)["GPU"] is expected


def test_without_the_environment_variable_the_switch_is_off(monkeypatch):
    monkeypatch.delitem(os.environ, "GPU", raising=False)
    assert runpy.run_path(config.__file__)["GPU"] is False


def test_a_meaningless_environment_variable_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("GPU", "banana")
    with pytest.raises(ValueError, match="GPU: expected 1 or 0, got 'banana'"):
        runpy.run_path(config.__file__)


@pytest.mark.parametrize(
    "module",
    [
        *["base_model", "functions", "layers", "np", "optimizer", "time_layers", "trainer", "util"],
    ],
)
def test_a_star_import_brings_np_as_the_book_has_it(module):
    namespace = {}
    exec(f"from common.{module} import *", namespace)
    assert namespace["np"] is np


def test_to_cpu_leaves_numpy_arrays_alone_and_fetches_others():
    x = numpy.arange(3)
    assert to_cpu(x) is x
    on_device = types.SimpleNamespace(get=lambda: x)  # as CuPy arrays have it
    assert to_cpu(on_device) is x
    assert to_cpu([1, 2]).tolist() == [1, 2]


@pytest.mark.gpu
def test_an_array_goes_to_the_gpu_and_comes_back():
    x = numpy.arange(6.0).reshape(2, 3)
    there = to_gpu(x)
    assert not isinstance(there, numpy.ndarray)
    assert to_gpu(there) is there
    numpy.testing.assert_array_equal(to_cpu(there), x)


@pytest.mark.usefixtures("backend")
def test_an_array_and_its_transposed_view_have_one_address_and_a_copy_another():
    x = np.zeros((3, 4))
    assert memory_address(x) == memory_address(x.T) == memory_address(x[:2])
    assert memory_address(x) != memory_address(x[1:])
    assert memory_address(x) != memory_address(x.copy())
