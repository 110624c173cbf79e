"""What ``import cupy`` gives: the names that CuPy has, and no others."""

import types

import numpy

from tests.cupy_double.arrays import DeviceArray
from tests.cupy_double.kernels import ElementwiseKernel, RawKernel, RawModule
from tests.cupy_double.routines import FUNCTIONS
from tests.cupy_double.signatures import CUPY, FOUND
from tests.cupy_double.streams import cuda
from tests.cupy_double.ufuncs import ufunc

# Of NumPy, as CuPy has them: dtypes, constants, what asks a dtype.
SAME = (
    *("bool_", "complex64", "complex128", "dtype", "e", "finfo", "float16", "float32", "float64"),
    *("floating", "iinfo", "inf", "int8", "int16", "int32", "int64", "integer", "intp", "nan"),
    *("newaxis", "number", "pi", "promote_types", "result_type", "uint8", "uint16", "uint32"),
    *("uint64", "isscalar", "can_cast"),
)


class _Module(types.ModuleType):
    def __getattr__(self, name):
        described = CUPY.get(name)
        if isinstance(described, dict) and hasattr(numpy, name):
            setattr(self, name, ufunc(name))
            return vars(self)[name]
        if name in CUPY:
            raise NotImplementedError(
                f"cupy.{name}: CuPy has it, the double does not yet; add it to tests/cupy_double"
            )
        raise AttributeError(f"CuPy {FOUND['version']} has no cupy.{name}")


def module():
    """A module as ``import cupy`` gives it."""
    cupy = _Module("cupy")
    cupy.__version__ = FOUND["version"]
    cupy.cuda = cuda()
    cupy.ndarray = DeviceArray
    cupy.RawModule, cupy.RawKernel = RawModule, RawKernel
    cupy.ElementwiseKernel = ElementwiseKernel
    for name in SAME:
        if name in CUPY:
            setattr(cupy, name, getattr(numpy, name))
    for name, function in FUNCTIONS.items():
        setattr(cupy, name, function)
    return cupy
