"""Kernels of one's own: CUDA C that runs on the CPU, as far as ``tests.cuda_on_cpu`` goes."""

import importlib

from tests.cupy_double.counters import counters


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
