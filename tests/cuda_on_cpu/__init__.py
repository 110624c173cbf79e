"""Kernels in CUDA C on the CPU: ``RawModule`` as CuPy has it, by g++ and a header of its own.

What the header shows and what it cannot know stands in its first lines (``cuda_on_cpu.h``). The
arrays of a launch are NumPy's, or objects that hold one as ``_values``. Each is copied between two
fences, so that what a kernel reads beside it is far too large, and what it writes there is found.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy

__all__ = ["MULTIPROCESSORS", "SHARED_MEMORY", "LaunchError", "RawModule", "compiler"]

HEADER, THREADS = (Path(__file__).with_name(name) for name in ("cuda_on_cpu.h", "threads.cpp"))
FLAGS = ["-std=c++20", "-O1", "-march=native", "-fno-trapping-math", "-shared", "-fPIC", "-pthread"]
FLAGS += ["-w"]  # g++ does not know the pragmas of CUDA C
MULTIPROCESSORS = 16  # blocks of a cooperative launch at most
SHARED_MEMORY = 232448  # bytes a block may ask for; 48 KiB of them without asking
MOST_ARGUMENTS = 64
FENCE = 1 << 16  # bytes before and behind an array


class LaunchError(RuntimeError):
    """A launch that a device would refuse, or that would hang or go wrong there."""


def compiler() -> str | None:
    """The C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "g++"))


class RawModule:
    """Kernels from one text.

    Args:
        code: CUDA C; includes are expanded.
        options: as for NVRTC; only ``-D`` counts.
        enable_cooperative_groups: whether the blocks of a launch run side by side.

    The other arguments are CuPy's; their defaults alone are known here.
    """

    descending = False  # whether the threads of a block run from the last to the first

    def __init__(
        self,
        *,
        code=None,
        path=None,
        options=(),
        backend="nvrtc",
        translate_cucomplex=False,
        enable_cooperative_groups=False,
        name_expressions=None,
        jitify=False,
    ):
        if path or backend != "nvrtc" or translate_cucomplex or name_expressions or jitify:
            raise NotImplementedError("only code for NVRTC")
        if not isinstance(options, tuple):
            raise TypeError(f"options: expected a tuple, got {type(options).__name__}")
        self.code, self.options = code, options
        self.cooperative = enable_cooperative_groups

    def compile(self, log_stream=None):
        """Now, and not at the first ``get_function``."""
        _compiled(self.code, self.options)

    def get_function(self, name):
        """The kernel of that name."""
        return RawKernel(self, _compiled(self.code, self.options), name)


class RawKernel:
    """One kernel; ``kernel(grid, block, args, shared_mem=bytes)`` runs it and waits for its end.

    Attributes:
        types: of its parameters, such as pf4 for a pointer to floats, i8 for 64 bits.
        max_dynamic_shared_size_bytes: may be set, up to what a block can have.
    """

    max_threads_per_block = 1024

    def __init__(self, module, library, name):
        if not hasattr(library, f"cuda_on_cpu_run_{name}"):
            raise LaunchError(f"there is no kernel {name}")
        types = (ctypes.c_char_p * MOST_ARGUMENTS)()
        getattr(library, f"cuda_on_cpu_types_{name}")(types)
        self.name, self.types = name, [code.decode() for code in types if code]
        self._module, self._launch = module, _threads().cuda_on_cpu_launch
        functions = (f"cuda_on_cpu_run_{name}", "cuda_on_cpu_shared")
        self._functions = [ctypes.cast(getattr(library, f), ctypes.c_void_p) for f in functions]
        self._most_shared = 48 << 10

    @property
    def max_dynamic_shared_size_bytes(self):
        return self._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        if size > SHARED_MEMORY:
            raise LaunchError(
                f"{self.name}: {size} bytes of shared memory, {SHARED_MEMORY} at most"
            )
        self._most_shared = size

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        sizes = [*grid, *[1] * (3 - len(grid)), *block, *[1] * (3 - len(block))]
        blocks, threads = math.prod(sizes[:3]), math.prod(sizes[3:])
        cooperative = self._module.cooperative
        if min(sizes) < 1 or threads > self.max_threads_per_block:
            raise LaunchError(f"{self.name}: a grid {grid} of blocks {block}")
        if shared_mem > self._most_shared:
            raise LaunchError(
                f"{self.name}: {shared_mem} bytes of shared memory, {self._most_shared} at most"
            )
        if cooperative and blocks > MULTIPROCESSORS:
            raise LaunchError(
                f"{self.name}: {blocks} blocks cannot run side by side, {MULTIPROCESSORS} can"
            )
        if len(args) != len(self.types):
            raise LaunchError(f"{self.name}: {len(args)} arguments for {len(self.types)}")
        values = [getattr(arg, "_values", arg) for arg in args]
        for k, (value, kind) in enumerate(zip(values, self.types, strict=True)):
            _check(f"{self.name}: argument {k}", value, kind)
        arrays = [value for value in values if isinstance(value, numpy.ndarray)]
        fenced = [
            _Fenced(array, k, f"{self.name}: argument {k}")
            for k, array in enumerate(values)
            if isinstance(array, numpy.ndarray) and _alone(array, arrays)
        ]
        places = {id(one.array): one.address for one in fenced}
        held = [
            ctypes.c_uint64(places.get(id(value), value.__array_interface__["data"][0]))
            if isinstance(value, numpy.ndarray)
            else ctypes.create_string_buffer(numpy.asarray(value).tobytes())
            for value in values
        ]
        pointers = (ctypes.c_void_p * max(1, len(held)))(*map(ctypes.addressof, held))
        message = ctypes.create_string_buffer(1000)
        self._launch(
            *self._functions,
            pointers,
            (ctypes.c_uint * 6)(*sizes),
            ctypes.c_uint64(shared_mem),
            int(cooperative),
            int(self._module.descending),
            message,
            ctypes.c_uint64(len(message)),
        )
        if message.value:
            raise LaunchError(f"{self.name}: {message.value.decode()}")
        for one in fenced:
            one.put_back()


def _check(who, value, kind):
    """Whether the bytes that CuPy would pass on are those that the kernel reads."""
    if kind[0] == "p":
        if not isinstance(value, numpy.ndarray):
            raise LaunchError(f"{who}: expected an array, got {type(value).__name__}")
        found = value.dtype.kind + str(value.dtype.itemsize)
        if found.replace("b", "u") != kind[1:].replace("b", "u"):  # a bool is a byte
            raise LaunchError(f"{who}: expected {kind[1:]}, got an array of {value.dtype}")
        return
    value = numpy.asarray(value)  # a Python number takes 64 bits, in CuPy too
    found = value.dtype.kind + str(value.dtype.itemsize)
    if value.ndim or found.replace("u", "i") != kind.replace("u", "i"):
        raise LaunchError(f"{who}: expected {kind}, got {found}")


def _alone(array, arrays):
    """Whether its memory is one piece that no other argument shares."""
    others = [other for other in arrays if other is not array]
    whole = array.flags.c_contiguous or array.flags.f_contiguous
    twice = len(arrays) - len(others) > 1
    return whole and not twice and not any(numpy.may_share_memory(array, x) for x in others)


class _Fenced:
    """A copy of an array between two fences."""

    def __init__(self, array, place, who):
        self.array, self.who = array, who
        self.flat = array.ravel(order="K").view("uint8") if array.size else numpy.empty(0, "uint8")
        shift = array.__array_interface__["data"][0] % 256  # a vector load needs the same address
        room = numpy.empty(self.flat.size + 2 * FENCE + 256, dtype="uint8")
        room = room[(shift - room.__array_interface__["data"][0]) % 256 :]
        self.before, self.values, self.behind, _ = numpy.split(
            room, numpy.cumsum([FENCE, self.flat.size, FENCE])
        )
        self.values[...] = self.flat
        # 8e37 as a float, and a little more for each argument. A NaN could be computed with and
        # written back unchanged, and a maximum would pass it over.
        self.fence = numpy.full(FENCE // 4, 0x7E800000 + 257 * place, dtype="uint32").view("uint8")
        self.before[...] = self.behind[...] = self.fence
        self.address = self.values.__array_interface__["data"][0]

    def put_back(self):
        for side in ("before", "behind"):
            if not numpy.array_equal(getattr(self, side), self.fence):
                raise LaunchError(f"{self.who}: the kernel wrote {side} it")
        if not numpy.array_equal(self.values, self.flat):
            self.flat[...] = self.values


@functools.cache
def _threads():
    """What runs launches; the modules find it by its names."""
    return _built(THREADS.read_text(encoding="utf-8"), (), ctypes.RTLD_GLOBAL)


@functools.cache
def _compiled(code, options):
    """The module of that text."""
    _threads()
    text = "\n".join([f'#include "{HEADER.name}"', code, *_appended(code), ""])
    return _built(text, tuple(option for option in options if option.startswith("-D")))


def _built(text, options, mode=ctypes.DEFAULT_MODE):
    """A library, compiled once and kept by the hash of all that it is made of."""
    program = compiler()
    if program is None:
        raise RuntimeError("there is no C++ compiler, neither g++ nor $CXX")
    flags = [*FLAGS, *options]
    parts = [HEADER.read_text(encoding="utf-8"), text, *flags, _about(program)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"time-layers-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / f"{key}.so"
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "module.so"
            command = [program, *flags, f"-I{HEADER.parent}", "-x", "c++", "-", "-o", str(made)]
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{program} refuses the text:\n{done.stderr}")
            os.replace(made, file)
    return ctypes.CDLL(str(file), mode)


def _appended(code):
    """What makes the kernels callable, and gives their shared memory a place."""
    array = r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\]"
    shared = set(re.findall(array, code))
    if len(shared) > 1:
        raise RuntimeError(f"one shared array a module, got {sorted(shared)}")
    yield (
        "CUDA_ON_CPU_SHARED({}, {})".format(*shared.pop())
        if shared
        else ("CUDA_ON_CPU_NOTHING_SHARED")
    )
    for name in re.findall(r"__global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(", code):
        yield f"CUDA_ON_CPU_KERNEL({name})"


@functools.cache
def _about(program):
    """Which compiler on which processor, since -march=native depends on it."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return version.stdout + "".join(sorted({x for x in lines if x.startswith("flags")}))
    except OSError:
        return version.stdout
