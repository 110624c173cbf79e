"""``np``: NumPy or CuPy, whichever ``common.config.GPU`` says at the moment of use.

This is the one place that knows the two apart. ``np.tanh``, ``np.random`` and the like are
looked up when they are used, so the switch can be flipped at run time; arrays made before
stay where they are. ``GPU`` is true while the switch is on, also where it was imported before.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from common import config

__all__ = [
    "GPU",
    "Array",
    "Parts",
    "Scalar",
    "array_of",
    "as_float64",
    "ids_on_device",
    "in_one_piece",
    "lay_side_by_side",
    "memory_address",
    "np",
    "on_device",
    "padded_size",
    "part_like",
    "plus",
    "same_elements",
    "to_cpu",
    "to_gpu",
]

# A cupy.ndarray has the same methods; a type checker knows it by this name too.
Array = numpy.ndarray[Any, numpy.dtype[Any]]
Scalar = Any  # a number, or an array without axes that may still be on the device

ALIGNMENT = 64  # bytes between the beginnings of two arrays in one memory, a multiple of them

INSTALL = (
    "Install 'time-layers[gpu-cuda12]' or 'time-layers[gpu-cuda13]' to match the CUDA driver: they "
    "bring CuPy with the CUDA libraries that it needs ([ctk]). To compute on the CPU, leave out "
    "--gpu and GPU=1, or set config.GPU = False."
)


@functools.cache
def _cupy() -> types.ModuleType:
    """CuPy, once a device has computed something.

    CuPy imports on machines without a GPU, and without the libraries that compile and multiply
    (NVRTC, cuBLAS). It then fails at the first array, or later, far from the cause; so the device
    is asked here, and one elementwise kernel and one product are run.
    """
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise
        raise RuntimeError(f"config.GPU is on, but CuPy is not installed. {INSTALL}") from error
    except ImportError as error:
        raise RuntimeError(
            f"config.GPU is on and CuPy is installed, but cannot be imported ({_in_one_line(error)}"
            f"). {INSTALL}"
        ) from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # the driver is missing, too old, or in a bad state
        raise RuntimeError(
            f"config.GPU is on and CuPy {cupy.__version__} is installed, but the CUDA driver "
            f"does not answer ({error}). Check nvidia-smi, or compute on the CPU (without --gpu)."
        ) from error
    if devices == 0:
        raise RuntimeError("config.GPU is on and CuPy is installed, but there is no CUDA device.")
    for what, run in (("elementwise kernel", _elementwise), ("matrix product", _product)):
        reason: Exception | None = None
        try:
            result = run(cupy)
            trouble = f"{result} for 2" if result != 2 else ""
        except Exception as error:  # a library is missing, or the device is busy or broken
            reason, trouble = error, _in_one_line(error)
        if trouble:
            raise RuntimeError(
                f"config.GPU is on and CuPy {cupy.__version__} finds a device, but its first "
                f"{what} fails ({trouble}). {INSTALL}"
            ) from reason
    return cupy


def _elementwise(cupy: Any) -> int:
    """1 + 1 by a kernel that is compiled on this machine."""
    one = cupy.ones((1, 1), dtype="float32")
    return int((one + one)[0, 0])


def _product(cupy: Any) -> int:
    """1 * 1 + 1 * 1 by cuBLAS."""
    ones = cupy.ones((2, 2), dtype="float32")
    return int((ones @ ones)[0, 0])


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class _ArrayModule:
    """Forwards every attribute to NumPy or, while ``config.GPU`` is on, to CuPy.

    By ``__getattribute__``: Python tries ``__getattr__`` only after a search, five times as slow.
    """

    def __getattribute__(self, name: str) -> Any:
        return getattr(_cupy() if config.GPU else numpy, name)


class _Switch:
    """What ``config.GPU`` says at the moment when it is asked."""

    def __bool__(self) -> bool:
        return bool(config.GPU)

    def __repr__(self) -> str:
        return repr(config.GPU)


if TYPE_CHECKING:
    import numpy as np
else:
    np = _ArrayModule()
GPU = _Switch()


def array_of(x: Any) -> Array:
    """``x`` itself if it is an array, on either device; a list or the like as a NumPy array."""
    return x if hasattr(x, "dtype") else numpy.asarray(x)


PIECE = 1 << 26  # ids that lie on the device at a time, of inputs and of targets each


def ids_on_device(model: Any, *ids: Array) -> tuple[Any, ...]:
    """Ids of a whole text, ready to be read window by window: ``ids[:, window]``.

    On the CPU they are what was given. On a GPU they go over now, so that no window is waited for;
    a text of more than PIECE ids goes over piece by piece. What is there is not looked at by the
    layers, so ``model.expect_ids`` is asked to look first, on the host. The ids of a model that has
    no such method, or whose layers look at ids, stay on the host; its layers take each window over.

    Args:
        model: has ``expect_ids(*ids)``, and may have ``reads_ids_on_host``.
        ids: each (N, length).

    Raises:
        ValueError: for an id out of range.
    """
    if not (config.GPU and hasattr(model, "expect_ids")):
        return ids
    if getattr(model, "reads_ids_on_host", False):
        return ids
    model.expect_ids(*ids)
    return tuple(_Pieces(each) if isinstance(each, numpy.ndarray) else each for each in ids)


class _Pieces:
    """Ids (N, length) whose columns go to the device as they are asked for, PIECE ids at a time."""

    def __init__(self, ids: numpy.ndarray) -> None:
        self.ids, self.width = ids, max(1, PIECE // len(ids))
        self.first = self.end = 0
        self.piece: Any = None  # columns first .. end, in memory column after column

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        rows, window = index
        if not self.first <= window.start <= window.stop <= self.end:
            self.first, self.piece = window.start, None
            self.end = max(window.stop, min(self.first + self.width, self.ids.shape[1]))
            columns = self.ids[:, self.first : self.end]
            self.piece = to_gpu(numpy.ascontiguousarray(columns.T)).T
        return self.piece[rows, window.start - self.first : window.stop - self.first]


def to_gpu(x: Array) -> Array:
    """Copy of ``x`` on the GPU (``x`` itself if it is there already)."""
    return _cupy().asarray(x)


def to_cpu(x: Array) -> numpy.ndarray:
    """Copy of ``x`` as a NumPy array (``x`` itself if it is one already)."""
    return x if isinstance(x, numpy.ndarray) else numpy.asarray(x.get() if hasattr(x, "get") else x)


def on_device(x: Array) -> bool:
    """Whether ``x`` lies on the device that ``np`` stands for, which is not the host."""
    return config.GPU and not isinstance(x, numpy.ndarray)


def as_float64(x: Scalar) -> Scalar:
    """``x`` in float64: a Python float, or on a GPU an array that nobody waits for."""
    return x.astype("float64") if hasattr(x, "get") else float(x)


def plus(x: Scalar, y: Scalar) -> Scalar:
    """``x + y``; where one is the number 0, the other one, for which a device computes nothing."""
    if isinstance(y, int | float) and y == 0:
        return x
    return y if isinstance(x, int | float) and x == 0 else x + y


def memory_address(x: Any) -> int:
    """Address of the first element: equal for an array and its transposed view.

    Of what is no array, such as a ``RowGradient``, the address of the object.
    """
    if isinstance(x, numpy.ndarray):
        return x.__array_interface__["data"][0]
    return x.data.ptr if hasattr(x, "data") else id(x)


def same_elements(a: Any, b: Any) -> bool:
    """Whether both are views of the same elements in the same order, or the same object."""
    if a is b:
        return True
    return memory_address(a) == memory_address(b) and (a.shape, a.strides) == (b.shape, b.strides)


def padded_size(x: Array) -> int:
    """Elements that ``x`` takes up in a memory that it shares with other arrays."""
    step = ALIGNMENT // x.dtype.itemsize
    return -(-x.size // step) * step


def part_like(memory: Array, like: Array) -> Array:
    """The beginning of ``memory`` in the shape and the order of ``like``."""
    part = memory[: like.size]
    return part.reshape(like.shape) if like.flags.c_contiguous else part.reshape(like.T.shape).T


def lay_side_by_side(
    replace: Callable[[Sequence[Array], Sequence[Array]], None], *lists: Sequence[Array]
) -> None:
    """On a GPU, bring the arrays of each of the ``lists`` into one memory, if of one dtype.

    What is done to all of them, such as clipping, then is one launch (:class:`Parts`). The parts
    keep their order in memory; what lies between them is zero.

    Args:
        replace: puts each of the new arrays, its second argument, where the old one stands.
        lists: of arrays. Where one of them has none, but a ``RowGradient``, that place is left out
            of all.
    """
    each_place = enumerate(zip(*lists, strict=False))
    of_arrays = [k for k, found in each_place if all(hasattr(x, "strides") for x in found)]
    for everything in lists:
        arrays = [everything[k] for k in of_arrays]
        if any(isinstance(x, numpy.ndarray) for x in arrays) or len({x.dtype for x in arrays}) != 1:
            continue
        memory = np.zeros(sum(map(padded_size, arrays)), dtype=arrays[0].dtype)
        copies, end = [], 0
        for array in arrays:
            copies.append(part_like(memory[end:], array))
            copies[-1][...] = array
            end += padded_size(array)
        replace(arrays, copies)


class Parts(list[Array]):
    """Arrays, and the one array of which they are the parts, if there is one.

    On the CPU there is none: a sum over all of it would round otherwise than the sum of the parts.

    Args:
        arrays: in any order; and what has memory of its own, such as a ``RowGradient``.

    Attributes:
        whole: the array (size,) of a device of which ``arrays`` are the parts and zeros the rest,
            as :func:`lay_side_by_side` lays them; else None.
        places: where each begins in it, in bytes; None for what has memory of its own.
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        super().__init__(arrays)
        self.whole: Array | None = None
        self.places: list[int | None] = []
        if any(isinstance(array, numpy.ndarray) for array in self):
            return
        bases = [getattr(array, "base", None) for array in self]
        whole = next((base for base in bases if base is not None and base.ndim == 1), None)
        if whole is None:
            return
        first = memory_address(whole)
        places = [
            None if base is None or not same_elements(base, whole) else memory_address(x) - first
            for x, base in zip(self, bases, strict=True)
        ]
        parts = [x for x, at in zip(self, places, strict=True) if at is not None]
        if whole.size == sum(map(padded_size, parts)):
            self.whole, self.places = whole, places

    def pieces(self) -> list[Any]:
        """The whole, and behind it what is no part of it."""
        return [self.whole, *(x for x, at in zip(self, self.places, strict=True) if at is None)]


def in_one_piece(*lists: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    """For each of the ``lists`` its few pieces, if all are :class:`Parts` that lie alike."""
    wholes = [x for x in lists if isinstance(x, Parts) and x.whole is not None]
    if len(wholes) < len(lists) or any(x.places != wholes[0].places for x in wholes):
        return lists
    return tuple(x.pieces() for x in wholes)
