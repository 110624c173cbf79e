"""CUDA C compiled for real architectures without a device: NVRTC from its wheel, by ctypes.

NVRTC makes a cubin, an ELF file. What a kernel needs stands in its sections: registers and the
stack of a thread in ``.nv.info`` (EIATTR_REGCOUNT, EIATTR_FRAME_SIZE), static shared memory as the
size of ``.nv.shared.KERNEL``. A spilled register has its place on that stack.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Resources", "architectures", "cubin", "library", "resources"]

FRAME_SIZE, REGISTERS = 0x11, 0x2F  # EIATTR_...: the function's symbol, then a number
HAS_SIZE = 0x04  # EIFMT_SVAL: a length and so many bytes follow


@functools.cache
def library():
    """NVRTC of the wheel ``nvidia-cuda-nvrtc``; None where it is not installed."""
    for package in ("nvidia.cu13", "nvidia.cuda_nvrtc"):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in found.submodule_search_locations if found else ():
            for file in sorted(Path(folder, "lib").glob("libnvrtc.so.*")):
                return ctypes.CDLL(str(file))
    return None


def _call(name, *args):
    status = getattr(library(), name)(*args)
    if status:
        what = library().nvrtcGetErrorString
        what.restype = ctypes.c_char_p
        raise RuntimeError(f"{name}: {what(status).decode()}")


def _bytes_of(program, what):
    """What ``nvrtcGetWHAT`` gives of a program."""
    size = ctypes.c_size_t()
    _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(f"nvrtcGet{what}", program, buffer)
    return buffer.raw


def architectures():
    """The numbers of the architectures that this NVRTC compiles for, such as 90."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", numbers)
    return list(numbers)


def cubin(text, architecture, options=()):
    """The program for that architecture.

    Raises:
        RuntimeError: with what the compiler says.
    """
    program = ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    words = [f"-arch=sm_{architecture}".encode(), *(option.encode() for option in options)]
    try:
        _call("nvrtcCompileProgram", program, len(words), (ctypes.c_char_p * len(words))(*words))
        return _bytes_of(program, "CUBIN")
    except RuntimeError as error:
        said = _bytes_of(program, "ProgramLog").decode(errors="replace")
        raise RuntimeError(f"sm_{architecture}: {error}\n{said}") from None
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


@dataclass(frozen=True)
class Resources:
    """What a kernel needs: registers and bytes of stack of a thread, static shared memory."""

    registers: int
    stack: int
    shared: int


def resources(cubin):
    """The :class:`Resources` of each kernel in a cubin, by name."""
    sections = _sections(cubin)
    numbers = _info(cubin, sections)
    return {
        kernel: Resources(found[REGISTERS], found[FRAME_SIZE], _shared(sections, kernel))
        for kernel, found in numbers.items()
        if f".text.{kernel}" in sections
    }


def _shared(sections, kernel):
    _, size = sections.get(f".nv.shared.{kernel}", (0, 0))
    return size


def _sections(elf):
    """Offset and size of each section, by name."""
    table, _, _, _, _, size, count, names = struct.unpack_from("<QI6H", elf, 0x28)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, table + k * size) for k in range(count)]
    strings = headers[names][4]
    found = {}
    for name, _, _, _, offset, length, *_ in headers:
        found[_text(elf, strings + name)] = offset, length
    return found


def _text(elf, begin):
    return elf[begin : elf.index(b"\0", begin)].decode()


def _info(elf, sections):
    """The numbers in ``.nv.info`` of each function, by its name and by what they are."""
    offset, size = sections[".symtab"]
    strings, _ = sections[".strtab"]
    places = range(offset, offset + size, 24)
    names = [_text(elf, strings + struct.unpack_from("<I", elf, at)[0]) for at in places]
    found = defaultdict(dict)
    at, size = sections[".nv.info"]
    end = at + size
    while at < end:
        form, attribute, length = struct.unpack_from("<BBH", elf, at)
        if form == HAS_SIZE and attribute in (FRAME_SIZE, REGISTERS):
            symbol, number = struct.unpack_from("<II", elf, at + 4)
            found[names[symbol]][attribute] = number
        at += 4 + (length if form == HAS_SIZE else 0)
    return found
