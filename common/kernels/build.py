"""Compiled kernels for float32 on the CPU, where the machine has a C compiler; optional.

The C files in ``c`` are compiled once, at the first use, into the user's cache folder; without a
compiler, or with ``TIMELAYERS_NATIVE=0``, the NumPy lines that stand beside every call run instead.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

__all__ = ["Library", "address", "load"]

# -fno-trapping-math lets the compiler turn the two-sided selects into vector code; nothing here
# lets it assume that there are no NaNs.
FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
FLAGS += ["-pthread"]
Library = ctypes.CDLL
POINTER, LENGTH, NUMBER, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
SIGNATURES = {
    "panel_columns": [],
    "product_wide": [],
    "product_depth": [],
    "output_chunk": [],
    "vector_block": [],
    "draw_block": [],
    "draw": [POINTER, LENGTH, NUMBER, DOUBLE, POINTER],
    "philox_words": [POINTER] + [LENGTH] * 6,
    "philox_keep": [POINTER] + [LENGTH] * 12,
    "add_rows": [POINTER] * 3 + [LENGTH] * 4,
    "add_scaled": [POINTER, NUMBER, POINTER] + [LENGTH] * 2,
    "scale": [POINTER, NUMBER] + [LENGTH] * 2,
    "descend": [POINTER] * 5 + [LENGTH] * 2,
    "squares": [POINTER] * 2 + [LENGTH] * 2,
    "product": [POINTER] * 5 + [LENGTH] * 9,
    "vector_product": [POINTER] * 4 + [LENGTH] * 5,
    "output_forward": [POINTER] * 2 + [LENGTH] * 2 + [POINTER] * 4 + [LENGTH] * 4,
    "output_backward": [POINTER] * 2 + [LENGTH] * 2 + [POINTER] * 5 + [LENGTH] * 5,
    "lstm_forward": [POINTER] * 8 + [LENGTH] * 5,
    "lstm_backward": [POINTER] * 8 + [LENGTH] * 4,
    "gru_forward": [POINTER] * 9 + [LENGTH] * 5,
    "gru_backward": [POINTER] * 9 + [LENGTH] * 4,
}
RETURNING = {name for name, arguments in SIGNATURES.items() if not arguments} | {"draw"}
FLOAT32 = numpy.dtype(numpy.float32)


@functools.cache
def load() -> Library | None:
    """Compile if need be, and load; None where that is impossible or not wanted."""
    if os.environ.get("TIMELAYERS_NATIVE", "1") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform == "win32":
        return None
    try:
        loaded = _open(_compile(compiler, Path(__file__).parent / "c", _cache_folder()))
        if loaded is None:  # damaged, by a power cut for example, and now removed
            loaded = _open(_compile(compiler, Path(__file__).parent / "c", _cache_folder()))
    except (OSError, subprocess.SubprocessError):
        return None
    if loaded is None:
        return None
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, LENGTH if name in RETURNING else None
    return loaded


def _open(library: Path) -> Library | None:
    """The loaded file; None, and the file removed, where it cannot be loaded."""
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        library.unlink(missing_ok=True)
        return None


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "time-layers" / "native"


def _compile(compiler: str, sources: Path, folder: Path) -> Path:
    """Path of the library for these sources, compiler, processor; compiled if it is not there.

    Two processes may compile at once: each writes a file of its own and renames it when whole.
    """
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=60
    ).stdout
    texts = [path.read_bytes() for path in sorted(sources.glob("*.[ch]"))]
    about = [*texts, " ".join(FLAGS).encode(), version, _processor().encode()]
    key = hashlib.sha256(b"\0".join(about)).hexdigest()[:16]
    library = folder / f"kernels-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            subprocess.run(
                [compiler, *FLAGS, "-o", str(made), *map(str, sorted(sources.glob("*.c")))],
                capture_output=True,
                check=True,
                timeout=120,
            )
            os.replace(made, library)
    return library


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared between different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return "\n".join(sorted(set(kept)))
    except OSError:
        return platform.platform() + platform.processor()


def address(array: numpy.ndarray | None) -> int | None:
    """Address of the first element; None is C's NULL.

    Read where CPython keeps it: behind the head of every object, NumPy's C structure of an array
    (``PyArrayObject``) begins with it. ``__array_interface__`` takes eight times as long.
    """
    if array is None:
        return None
    if sys.implementation.name != "cpython":
        return array.__array_interface__["data"][0]
    return POINTER.from_address(id(array) + object.__basicsize__).value
