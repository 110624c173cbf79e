"""A pickled list of float arrays, read as data: nothing that the file names is imported or called.

``pickle.load`` runs whatever a file tells it to run. Here the standard library's ``pickletools``
takes the file apart into opcodes, and a small evaluator follows those with which ``pickle.dump``
writes NumPy arrays (protocols 0 to 5). The five names in such a file are marks without a meaning
of their own. No array takes more bytes than the file holds for it, whatever the file declares.
"""

from __future__ import annotations

import math
import os
import pickletools
import warnings
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy

from common.files.atomic import read_whole

__all__ = ["read_array_list"]

MAX_BYTES = 1 << 28  # 256 MiB: three times what the largest model of the book takes in float32
MAX_OPCODES = 10_000  # an array takes about 40


class _Name(Enum):
    RECONSTRUCT = "_reconstruct"
    FROM_BUFFER = "_frombuffer"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    ENCODE = "encode"


NAMES = {
    "numpy.core.multiarray _reconstruct": _Name.RECONSTRUCT,  # NumPy 1
    "numpy._core.multiarray _reconstruct": _Name.RECONSTRUCT,  # NumPy 2
    "numpy.core.numeric _frombuffer": _Name.FROM_BUFFER,  # protocol 5
    "numpy._core.numeric _frombuffer": _Name.FROM_BUFFER,
    "numpy ndarray": _Name.NDARRAY,
    "numpy dtype": _Name.DTYPE,
    "_codecs encode": _Name.ENCODE,  # how protocols 0 to 2 write bytes
}

# Opcodes whose argument is the value that they push.
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG1"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUT, GET = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}


@dataclass(eq=False)
class _Dtype:
    kind: str  # "f2" or "f4"
    byte_order: str = ""  # "<" or ">" once BUILD has told


@dataclass(eq=False)
class _Array:
    values: numpy.ndarray | None = None  # None until BUILD has told


class _Evaluator:
    """A stack, the stacks below the open marks, and the memo."""

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        # Bytes are there once as text at most and once in an array; what needs more uses the memo
        # to grow beyond the file.
        self.bytes_left = 2 * size

    def do(self, opcode: str, argument: Any) -> None:
        """Follow one opcode.

        Raises:
            ValueError: for an opcode, a name or a call that no list of arrays needs.
            IndexError, KeyError: for one that takes from the stack or the memo what is not there.
        """
        stack = self.stack
        if opcode in VALUES:
            stack.append(argument)
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode in TUPLES:
            stack.append(tuple([stack.pop() for _ in range(TUPLES[opcode])][::-1]))
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "MARK":
            self.below.append(stack)
            self.stack = []
        elif opcode == "TUPLE":
            items = self._since_mark()
            self.stack.append(tuple(items))
        elif opcode == "LIST":
            items = self._since_mark()
            self.stack.append(items)
        elif opcode in ("APPEND", "APPENDS"):
            items = [stack.pop()] if opcode == "APPEND" else self._since_mark()
            if not isinstance(self.stack[-1], list):
                raise ValueError("it appends to what is no list")
            self.stack[-1].extend(items)
        elif opcode in PUT:
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in GET:
            stack.append(self.memo[argument])
        elif opcode == "GLOBAL":
            stack.append(_known_name(argument))
        elif opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            if not (isinstance(name, str) and isinstance(module, str)):
                raise ValueError("it names something without text")
            stack.append(_known_name(f"{module} {name}"))
        elif opcode == "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(self._reduce(name, arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"it uses the opcode {opcode}, which no list of arrays needs")

    def result(self) -> list[numpy.ndarray]:
        """The arrays, once all opcodes have been followed."""
        if self.below or len(self.stack) != 1 or not isinstance(self.stack[0], list):
            raise ValueError("it is no list")
        arrays = []
        for k, item in enumerate(self.stack[0]):
            if not isinstance(item, _Array) or item.values is None:
                raise ValueError(f"item {k} of the list is no array")
            arrays.append(item.values)
        return arrays

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _spend(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise ValueError("its arrays are larger than the file")

    def _reduce(self, name: Any, arguments: Any) -> Any:
        """What stands for ``name(*arguments)``."""
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no function")
        if name is _Name.RECONSTRUCT and arguments == (_Name.NDARRAY, (0,), b"b"):
            return _Array()
        if name is _Name.DTYPE and arguments[1:] == (False, True):  # a copy, or BUILD sets nothing
            if arguments[0] not in ("f2", "f4"):
                raise ValueError("it holds an array that is neither float16 nor float32")
            return _Dtype(arguments[0])
        if name is _Name.ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
            if not isinstance(arguments[0], str):
                raise ValueError("it encodes what is no text")
            self._spend(len(arguments[0]))
            return arguments[0].encode("latin1")
        if name is _Name.FROM_BUFFER and len(arguments) == 4 and arguments[3] in ("C", "F"):
            return _Array(self._values(*arguments))
        raise ValueError(f"it calls {name.value} as no array does")

    def _build(self, target: Any, state: Any) -> None:
        """What stands for ``target.__setstate__(state)``."""
        if isinstance(target, _Dtype):
            if state in ((3, order, None, None, None, -1, -1, 0) for order in "<>"):
                target.byte_order = state[1]
                return
        elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            version, shape, dtype, is_fortran, raw = state
            if version == 1 and isinstance(is_fortran, int) and target.values is None:
                target.values = self._values(raw, dtype, shape, "F" if is_fortran else "C")
                return
        raise ValueError("it sets a state that is not that of an array")

    def _values(self, raw: Any, dtype: Any, shape: Any, order: Any) -> numpy.ndarray:
        """A view of ``raw``; its size is compared with the declared shape first."""
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("it holds an array without bytes")
        if not isinstance(dtype, _Dtype) or not dtype.byte_order:
            raise ValueError("it holds an array without a dtype")
        if not isinstance(shape, tuple) or len(shape) not in (1, 2):
            raise ValueError("it holds an array that is neither a vector nor a matrix")
        if not all(type(size) is int and size > 0 for size in shape):
            raise ValueError("it holds an array with a size that is no number above 0")
        if math.prod(shape) * int(dtype.kind[1]) != len(raw):
            raise ValueError("it holds an array whose bytes do not fill its shape")
        self._spend(len(raw))
        return numpy.frombuffer(raw, dtype.byte_order + dtype.kind).reshape(shape, order=order)


def _known_name(name: str) -> _Name:
    if name not in NAMES:
        raise ValueError(f"it names {name[:80]!r}, which no list of arrays needs")
    return NAMES[name]


def _evaluate(data: bytes) -> list[numpy.ndarray]:
    evaluator = _Evaluator(len(data))
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
        if count == MAX_OPCODES:
            raise ValueError(f"it has more than {MAX_OPCODES} opcodes")
        try:
            evaluator.do(opcode.name, argument)
        except (IndexError, KeyError) as error:
            raise ValueError(f"byte {position}: {opcode.name} takes what is not there") from error
    if position != len(data) - 1:
        raise ValueError(f"it goes on after its end at byte {position}")
    return evaluator.result()


def read_array_list(path: str | os.PathLike) -> list[numpy.ndarray]:
    """The arrays of a file that ``pickle.dump`` has made of a list of float16 or float32 arrays.

    Args:
        path: the file, 256 MiB at most.

    Returns:
        Vectors and matrices in the order of the list, read-only or not, as they stand in the file.

    Raises:
        FileNotFoundError: where there is no such file.
        OSError: where it cannot be read, or is no file.
        ValueError: for anything else: another kind of file, one that is cut short or too large, and
            one that names, calls or holds what a list of such arrays does not need.
    """
    data = read_whole(path, MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        with warnings.catch_warnings():  # a text that no array needs may have unknown escapes
            warnings.simplefilter("ignore", DeprecationWarning)
            return _evaluate(data)
    except ValueError as error:
        raise ValueError(f"{path}: not a pickled list of float arrays ({error})") from error
