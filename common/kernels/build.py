"""Compiled kernels for float32 on the CPU, where the machine has a C compiler; optional.

The C files in ``c`` are compiled once, at the first use, into the user's cache folder; where that
cannot serve, into a private folder beside the system's temporary files. Without a compiler, or with
``TIMELAYERS_NATIVE=0``, the NumPy lines that stand beside every call run instead, and ``attempt``
says why.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy

__all__ = ["Attempt", "Library", "attempt", "load"]

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
    "output_forward": [POINTER] * 2 + [LENGTH] * 2 + [POINTER] * 5 + [LENGTH] * 4,
    "output_backward": [POINTER] * 2 + [LENGTH] * 2 + [POINTER] * 5 + [LENGTH] * 5,
    "describe": [POINTER] * 7 + [LENGTH] * 4,
    "lstm_forward": [POINTER] * 8 + [LENGTH] * 5,
    "lstm_backward": [POINTER] * 8 + [LENGTH] * 4,
    "gru_forward": [POINTER] * 9 + [LENGTH] * 5,
    "gru_backward": [POINTER] * 9 + [LENGTH] * 4,
}
RETURNING = {name for name, arguments in SIGNATURES.items() if not arguments} | {"draw"}
FLOAT32 = numpy.dtype(numpy.float32)

SOURCES = Path(__file__).parent / "c"
SWITCH = "TIMELAYERS_NATIVE"
ON, OFF = ("1", "on", "true", "yes"), ("0", "off", "false", "no")
SECONDS_TO_COMPILE = 600  # it takes 5; a machine may be busy
DAYS_UNUSED, FILES_KEPT = 30, 8  # in a cache folder, beside the file that was just made
# How a compiler ends by itself, such as without a folder for temporary files: that is an answer.
CRASHES = [signal.SIGABRT, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE]
# What gcc and clang say when a process that they started for a part of the work was ended.
ENDED_INSIDE = [
    f"{how} signal terminated program" for how in ("Killed", "Terminated", "Interrupt", "Hangup")
]
ENDED_INSIDE += ["unable to execute command: Killed", "unable to execute command: Terminated"]


@dataclass(frozen=True)
class Attempt:
    """What came of the attempt to have kernels.

    Attributes:
        library: the kernels, or None.
        reason: why there are none; empty where they work.
        compiler: the first line of what it says about its version; empty where none was asked.
        file: path of the loaded file; empty where there is none.
        key: stands for sources, flags, compiler and processor: with an equal key, the same bits.
    """

    library: Library | None = None
    reason: str = ""
    compiler: str = ""
    file: str = ""
    key: str = ""


class _CannotCompile(Exception):
    """There can be no kernels here; the message says why."""


class _Ended(Exception):
    """A signal ended the compiler, which may work the next time."""


@functools.cache
def load() -> Library | None:
    """The kernels; None where they cannot be had or are not wanted.

    Raises:
        ValueError, RuntimeError: as ``attempt`` does.
    """
    return attempt().library


@functools.cache
def attempt() -> Attempt:
    """Compile if need be, and load; once in a process.

    Raises:
        ValueError: for a value of ``TIMELAYERS_NATIVE`` that is neither yes nor no.
        RuntimeError: where a signal ended the compiler twice. A run that then went on in NumPy
            would be another run.
    """
    switch = os.environ.get(SWITCH) or "1"
    if switch.lower() in OFF:
        return Attempt(reason=f"{SWITCH}={switch}")
    if switch.lower() not in ON:
        raise ValueError(f"{SWITCH}: expected one of {', '.join(ON + OFF)}, got {switch!r}")
    if sys.platform == "win32":
        return Attempt(reason="they are not made for Windows")
    for _ in range(2):
        try:
            return _compiled()
        except (OSError, _CannotCompile) as answer:
            return Attempt(reason=str(answer))
        except _Ended as ended:
            message = str(ended)
    raise RuntimeError(
        f"kernels: {message}, twice; start again, or set {SWITCH}=0 to compute with NumPy"
    )


def _compiled() -> Attempt:
    """The kernels from the first folder that can hold and load them."""
    compiler = _compiler()
    version = _run(compiler, "--version").decode(errors="replace")
    about = version.partition("\n")[0].strip()
    key = _key(version, compiler[1:])
    problems: list[str] = []
    empty = []
    for folder in _folders(problems):
        try:
            found = _find(folder, key)
            if found is None:
                empty.append(folder)
                continue
            return Attempt(_open(found), "", about, str(found), key)
        except OSError as error:  # mounted noexec
            problems.append(str(error))
        except AttributeError:  # not what it should be, and now removed
            empty.append(folder)
    made = _compile(compiler) if empty else b""
    for folder in empty:
        try:
            found = _store(made, folder, key)
            _prune(folder, found)
            return Attempt(_open(found), "", about, str(found), key)
        except OSError as error:  # read-only, full, or noexec
            problems.append(str(error))
        except AttributeError as error:
            raise _CannotCompile(f"{shlex.join(compiler)} made a wrong file: {error}") from None
    raise _CannotCompile("no folder can hold the compiled file: " + "; ".join(problems))


def _compiler() -> list[str]:
    """The words of $CC, else cc or gcc."""
    given = os.environ.get("CC", "").strip()
    if not given:
        found = shutil.which("cc") or shutil.which("gcc")
        if found is None:
            raise _CannotCompile("there is no C compiler, neither cc nor gcc, and CC is not set")
        return [found]
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise _CannotCompile(f"CC={given} cannot be split into words: {error}") from None
    if shutil.which(words[0]) is None:
        raise _CannotCompile(f"CC={given}: there is no command {words[0]}")
    return words


def _key(version: str, options: list[str]) -> str:
    """Of the sources, the flags, the compiler with the ``options`` in $CC, and the processor."""
    texts = [path.read_bytes() for path in sorted(SOURCES.glob("*.[ch]"))]
    flags = shlex.join([*options, *FLAGS])
    about = [*texts, flags.encode(), version.encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(about)).hexdigest()[:16]


def _processor() -> str:
    """What -march=native depends on: a home folder may be shared between different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        return "\n".join(sorted(set(kept)))
    except OSError:
        return platform.platform() + platform.processor()


def _run(compiler: list[str], *arguments: str, scratch: str | None = None) -> bytes:
    """What the compiler prints. It runs in a session of its own: Ctrl-C goes to a terminal's group.

    ``scratch`` is the folder for its temporary files, which it leaves where a signal ends it.

    Raises:
        _Ended: where a signal ended it.
        _CannotCompile: where it fails, cannot be started or takes too long.
    """
    name = shlex.join(compiler)
    try:
        process = subprocess.Popen(
            [*compiler, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # its messages in English
            env={**os.environ, "LC_ALL": "C", **({"TMPDIR": scratch} if scratch else {})},
            start_new_session=True,
        )
    except OSError as error:
        raise _CannotCompile(f"{name} cannot be started: {error}") from None
    try:
        stdout, stderr = process.communicate(timeout=SECONDS_TO_COMPILE)
    except subprocess.TimeoutExpired:
        _end(process)
        raise _CannotCompile(f"{name} took longer than {SECONDS_TO_COMPILE} s") from None
    except BaseException:
        _end(process)
        raise
    code, said = process.returncode, stderr.decode(errors="replace")
    signum = -code if code < 0 else code - 128  # 128 + n: a shell's
    if (signum > 0 and signum not in CRASHES) or any(text in said for text in ENDED_INSIDE):
        raise _Ended(f"a signal ended the compiler {name} (exit status {code})")
    if code != 0:
        lines = said.strip().splitlines() or ["without a message"]
        why = next((line for line in lines if "error" in line), lines[0]).strip()
        raise _CannotCompile(f"{name} failed with exit status {code}: {why}")
    return stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the compiler and what it started."""
    with suppress(OSError):  # gone by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _compile(compiler: list[str]) -> bytes:
    """The compiled library."""
    try:
        with tempfile.TemporaryDirectory(prefix="time-layers-") as scratch:
            made = Path(scratch) / "kernels.so"
            sources = map(str, sorted(SOURCES.glob("*.c")))
            _run(compiler, *FLAGS, "-o", str(made), *sources, scratch=scratch)
            return made.read_bytes()
    except OSError as error:
        raise _CannotCompile(f"{shlex.join(compiler)} made no file: {error}") from None


def _open(file: Path) -> Library:
    """Load it, and tell ctypes what the functions take and return.

    Raises:
        OSError: where the system refuses to load it.
        AttributeError: where a function is missing; the file is then removed.
    """
    library = ctypes.CDLL(str(file))
    try:
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = LENGTH if name in RETURNING else None
    except AttributeError:
        file.unlink(missing_ok=True)
        raise
    return library


# --- the folders


def _folders(problems: list[str]) -> list[Path]:
    """The user's cache and a private folder beside temporary files, where they can be had."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    cache = Path(base) / "time-layers" / "native"
    folders = []
    try:
        if not cache.is_absolute():
            raise FileNotFoundError("there is no home folder")
        cache.mkdir(parents=True, exist_ok=True)
        folders.append(cache)
    except OSError as error:
        problems.append(str(error))
    try:
        private = Path(tempfile.gettempdir()) / f"time-layers-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        about = private.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
            raise PermissionError(f"others can write to {private}")  # what lies there is run
        folders.append(private)
    except OSError as error:
        problems.append(str(error))
    return folders


def _find(folder: Path, key: str) -> Path | None:
    """The file of this key whose content is that of its name; others of the key are removed.

    A truncated library would load, and end the process at its first use.
    """
    for path in sorted(folder.glob(f"kernels-{key}.*.so")):
        try:
            if path.name == _name(key, path.read_bytes()):
                _mark_as_used(path)
                return path
            path.unlink()
        except FileNotFoundError:  # another process removed it
            continue
    return None


def _name(key: str, content: bytes) -> str:
    return f"kernels-{key}.{hashlib.sha256(content).hexdigest()[:16]}.so"


def _mark_as_used(path: Path) -> None:
    with suppress(OSError):  # of a folder that is read-only
        os.utime(path)


def _store(content: bytes, folder: Path, key: str) -> Path:
    """Write it whole: under a name of its own, to the disk, then renamed."""
    path = folder / _name(key, content)
    handle, scratch = tempfile.mkstemp(prefix="compiling-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o700)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path


def _prune(folder: Path, kept: Path) -> None:
    """Remove what was not used for long, but for the newest few.

    Another process may be about to load one of them: it then compiles again. One that has loaded it
    keeps it.
    """

    def age(path: Path) -> float:
        try:
            return now - path.stat().st_mtime
        except OSError:
            return 0.0

    now = time.time()
    libraries = sorted((age(path), path) for path in folder.glob("kernels-*.so") if path != kept)
    old = [path for days, path in libraries[FILES_KEPT:] if days > DAYS_UNUSED * 86400]
    old += [path for path in folder.glob("compiling-*") if age(path) > 86400]
    for path in old:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process was faster
            continue
