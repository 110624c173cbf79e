"""Kernels of one's own: CUDA C that runs on the CPU, as far as ``tests.cuda_on_cpu`` goes."""

import importlib

import numpy

from tests.cupy_double.arrays import DeviceArray
from tests.cupy_double.counters import counters
from tests.cupy_double.ufuncs import SCALARS

BLOCK = 128  # threads of a block of an elementwise kernel
C_NAMES = {
    "float32": "float",
    "float64": "double",
    "bool": "bool",
    "uint8": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (32, 64)},
}


class RawModule:
    """What is called ``cupy.RawModule``: served by the header that runs CUDA C on the CPU.

    It waits for nothing, and each call of one of its functions is a launch. What is compiled ahead
    of time (``path=``) is for a device only.
    """

    def __init__(
        self,
        code=None,
        *,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=False,
    ):
        if (code is None) == (path is None):
            raise TypeError("RawModule: expected either code or path")
        self._module = importlib.import_module("tests.cuda_on_cpu").RawModule(
            code=code,
            path=path,
            options=options,
            enable_cooperative_groups=enable_cooperative_groups,
        )

    def get_function(self, name):
        return RawKernel.of(self._module.get_function(name), name)


class RawKernel:
    """What is called ``cupy.RawKernel``."""

    def __init__(self, code, name, options=(), backend="nvrtc", **more):
        self._run = RawModule(code=code, options=options, backend=backend, **more)
        self._run, self.name = self._run.get_function(name)._run, name

    @classmethod
    def of(cls, run, name):
        kernel = cls.__new__(cls)
        kernel._run, kernel.name = run, name
        return kernel

    def __call__(self, grid, block, args, *, shared_mem=0):
        counters.launch(self.name)
        self._run(grid, block, args, shared_mem=shared_mem)

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._run.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self._run.max_dynamic_shared_size_bytes = size


class ElementwiseKernel:
    """What is called ``cupy.ElementwiseKernel``: one C expression for every element.

    Parameters are ``T x``, ``float32 y`` or ``raw T z``; a letter stands for the dtype of the first
    array that has it. Inputs are broadcast. Loops before and behind, ``size`` and ``raw`` outputs
    are not known here.
    """

    def __init__(
        self, in_params, out_params, operation, name="kernel", reduce_dims=True, preamble=""
    ):
        self.ins, self.outs = (
            [param.split() for param in params.split(",") if param.strip()]
            for params in (in_params, out_params)
        )
        self.operation, self.name, self.preamble = operation, name, preamble

    def __call__(self, *args):
        if not len(self.ins) <= len(args) <= len(self.ins) + len(self.outs):
            raise TypeError(f"{self.name}: expected {len(self.ins)} arguments, got {len(args)}")
        for arg in args:
            if not isinstance(arg, (DeviceArray, *SCALARS)):
                raise TypeError(f"Unsupported type {type(arg)}")
        dtypes = self._dtypes(args)
        given, outs = args[: len(self.ins)], list(args[len(self.ins) :])
        whole = [
            getattr(arg, "shape", ())
            for arg, param in zip(given, self.ins, strict=True)
            if param[0] != "raw"
        ]
        shape = numpy.broadcast_shapes(*whole, *(out.shape for out in outs))
        for kind, _ in self.outs[len(outs) :]:
            outs.append(DeviceArray(numpy.empty(shape, dtypes[kind])))
        values = [
            self._input(arg, param, shape, dtypes)
            for arg, param in zip(given, self.ins, strict=True)
        ]
        targets = [numpy.ascontiguousarray(out._values) for out in outs]
        size = int(numpy.prod(shape))
        if size:
            kernel = RawKernel(self._code(dtypes), self.name)
            kernel((-(-size // BLOCK),), (BLOCK,), (*values, *targets, numpy.int64(size)))
        for out, target in zip(outs, targets, strict=True):
            if out._values is not target:
                out._values[...] = target
        return outs[0] if len(outs) == 1 else tuple(outs)

    def _dtypes(self, args):
        """The dtype of every kind of parameter: of ``T`` and of ``float32``."""
        found = {}
        params = [*self.ins, *self.outs]
        pairs = zip(params, args, strict=False)  # outputs may be left out
        arrays_first = sorted(pairs, key=lambda pair: not hasattr(pair[1], "dtype"))
        for (*_, kind, _), arg in arrays_first:
            if len(kind) == 1:
                found.setdefault(kind, getattr(arg, "dtype", numpy.asarray(0.0).dtype))
        for *_, kind, _ in params:
            found.setdefault(kind, None if len(kind) == 1 else numpy.dtype(kind))
        if unknown := [kind for kind, dtype in found.items() if dtype is None]:
            raise TypeError(f"{self.name}: the dtype of {unknown} is not known")
        return found

    def _input(self, arg, param, shape, dtypes):
        """An array of its own for each input; numbers are arrays of one element."""
        *raw, kind, _ = param
        values = numpy.asarray(getattr(arg, "_values", arg)).astype(dtypes[kind])
        return numpy.ascontiguousarray(values if raw else numpy.broadcast_to(values, shape))

    def _code(self, dtypes):
        arguments, names = [], []
        for param in self.ins:
            *raw, kind, name = param
            arguments.append(f"const {C_NAMES[str(dtypes[kind])]} *{name if raw else name + '_'}")
            if not raw:
                names.append(f"const {C_NAMES[str(dtypes[kind])]} {name} = {name}_[i];")
        for kind, name in self.outs:
            arguments.append(f"{C_NAMES[str(dtypes[kind])]} *{name}_")
            names.append(f"{C_NAMES[str(dtypes[kind])]} &{name} = {name}_[i];")
        kinds = [f"typedef {C_NAMES[str(t)]} {k};" for k, t in dtypes.items() if len(k) == 1]
        return "\n".join(
            [
                *("#include <math.h>", *kinds, self.preamble),
                f'extern "C" __global__ void {self.name}({", ".join(arguments)}, int64_t size_)',
                "{ const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;",
                *("if (i >= size_) return;", *names, self.operation + "; }"),
            ]
        )
