"""Products and whole windows by compiled kernels where there are any, else by NumPy or CuPy.

A kernel takes contiguous float32 arrays, on the CPU one in C, on a GPU one in CUDA C (``device``).
Every function here checks whether it has such arrays; the result then has the same bits for any
number of threads. What NumPy computes instead
(other arrays, layers without a kernel, everything where there is no compiler) may depend on the
number of threads of its BLAS, which ``status`` tells.

``build`` compiles the C files in ``c``; ``threads`` has those of Python and of the BLAS, ``passes``
what runs over whole arrays, ``output`` the output layer, ``philox`` random bits.

The threads of a BLAS go on spinning for some hundredths of a second after each product, in case
another one comes. Until then they take a core away from everything else that has threads, and
where another program wants a core too, they wait for each other. The kernels' threads rest.

Shapes: N batch, T time steps, D input width, H hidden width.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import numpy

from common.kernels import device
from common.kernels.build import FLOAT32, POINTER, Library, attempt, load
from common.kernels.threads import blas, num_threads, one_blas_thread, over_rows
from common.np import ALIGNMENT, Array, np, on_device

__all__ = [
    "FEW_ROWS",
    "SMALL_PRODUCT",
    "Library",
    "Workspace",
    "address",
    "affine",
    "blas_at_rest",
    "gru_backward",
    "gru_forward",
    "in_order",
    "library",
    "library_to_write",
    "lstm_backward",
    "lstm_forward",
    "notice",
    "num_threads",
    "one_blas_thread",
    "one_thread_if_small",
    "over_rows",
    "prepare",
    "print_notice",
    "product",
    "rnn_backward",
    "rnn_forward",
    "share_workspace",
    "shares_memory",
    "status",
    "writeable",
]

FEW_ROWS = 5  # fewer do not pay for bringing a matrix into the order of the kernels
SMALL_PRODUCT = 1 << 22  # multiply-adds that take about as long as waking a thread, 0.1 ms
SMALL_MATRIX = 1 << 18  # elements that are read in that time
LARGE_STEP = 1 << 19  # multiply-adds of one step that are worth meeting another thread for


# --- what there is


def prepare() -> None:
    """Compile now, so that no iteration waits for it; call it before the first one.

    Raises:
        ValueError: for a value of ``TIMELAYERS_NATIVE`` that is neither yes nor no.
        RuntimeError: where a signal ended the compiler twice.
    """
    load()


def status() -> dict[str, Any]:
    """What the numbers of a run depend on beside its options; ready for JSON.

    Returns:
        ``compiled``: whether the kernels work; ``reason``: why not, or "".
        ``compiler``, ``file``: its version, and what it made.
        ``key``: stands for sources, flags, compiler and processor.
        ``threads``: of the kernels, whose results do not depend on it.
        ``blas``: name, version, processor and threads of NumPy's BLAS, a line for each. What NumPy
        computes depends on all of them.

    Raises:
        ValueError, RuntimeError: as ``prepare`` does.
    """
    found = attempt()
    return {
        "compiled": found.library is not None,
        "reason": found.reason,
        "compiler": found.compiler,
        "file": found.file,
        "key": found.key,
        "threads": num_threads(),
        "blas": [_about(library) for library in blas()],
    }


def _about(library: Any) -> str:
    architecture = getattr(library, "architecture", None) or "any processor"
    threads = library.get_num_threads()
    return f"{library.internal_api} {library.version} for {architecture}, {threads} threads"


def notice() -> str | None:
    """One line that says that there are no kernels, and why; None where there are."""
    reason = attempt().reason
    if not reason:
        return None
    return (
        "computing with NumPy alone, which takes up to twice as long and rounds differently: "
        f"no compiled kernels ({' '.join(reason.split())})"
    )


@functools.cache
def print_notice() -> None:
    """Print ``notice`` to stderr, once in a process."""
    line = notice()
    if line is not None and sys.stderr is not None:
        with suppress(OSError, ValueError):  # nobody reads it any more
            print(line, file=sys.stderr, flush=True)


def address(
    array: numpy.ndarray | None,
    at: Any = POINTER.from_address,
    head: int | None = object.__basicsize__ if sys.implementation.name == "cpython" else None,
) -> int | None:
    """Address of the first element; None is C's NULL.

    Read where CPython keeps it: behind the head of every object, NumPy's C structure of an array
    (``PyArrayObject``) begins with it. ``__array_interface__`` takes eight times as long. ``at``
    and ``head`` are what it needs, looked up once.
    """
    if array is None:
        return None
    if head is None:
        return array.__array_interface__["data"][0]
    return at(id(array) + head).value


def library(*arrays: Array) -> Library | None:
    """The kernels, if all ``arrays`` are contiguous and aligned float32 in NumPy; else None."""
    for array in arrays:
        if not isinstance(array, numpy.ndarray) or array.dtype != FLOAT32:
            return None
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned):
            return None
    return load()


def library_to_write(out: Array, *arrays: Array) -> Library | None:
    """The kernels, if ``out`` can be written to as well; else NumPy says what is wrong with it."""
    return library(out, *arrays) if writeable(out) else None


def writeable(*arrays: Array) -> bool:
    """Whether all can be written to. A kernel that writes to a read-only page ends the process."""
    for array in arrays:
        if isinstance(array, numpy.ndarray) and not array.flags.writeable:
            return False
    return True


def shares_memory(out: Array, *arrays: Array | None) -> bool:
    """Whether one of ``arrays`` may lie in the memory of ``out``, which a kernel writes."""
    if not isinstance(out, numpy.ndarray):
        return False
    for array in arrays:  # noqa: SIM110, twice as fast as any(...)
        if array is not None and numpy.may_share_memory(out, array):
            return True
    return False


def in_order(x: Array) -> Array:
    """``x`` or its transpose, whichever is contiguous if one of them is."""
    return x if x.flags.c_contiguous else x.T


class Workspace:
    """Memory for what a layer needs for a moment, kept from one turn to the next.

    The largest arrays of a step are of that kind: the scores, between the two passes of the output
    layer; the gradients of the gates, within the backward pass of a recurrent layer. Each with
    memory of its own they would add up, and asking the system for it in every step takes time.

    The block is a quarter larger than the first array of a turn asks for. An array that does not
    fit into the rest of the block gets memory of its own.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._block: Array | None = None
        self._used = 0  # bytes of the block

    def __reduce__(self) -> tuple:
        return type(self), ()  # a copy begins empty

    def begin(self) -> int:
        """Begin another turn; arrays of the turns before may be overwritten from now on.

        Returns:
            Its number: while ``turn`` is the same, the arrays are whole.
        """
        self.turn += 1
        self._used = 0
        return self.turn

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of this turn; its values are arbitrary."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if self._block is None or self._used == 0:
            self._block = self._at_least(size)
        if self._used + size > self._block.size:
            return np.empty(shape, dtype=dtype)
        found = self._block[self._used : self._used + size].view(dtype).reshape(shape)
        self._used += -(-size // ALIGNMENT) * ALIGNMENT
        return found

    def _at_least(self, size: int) -> Array:
        block, self._block = self._block, None
        if isinstance(block, np.ndarray) and block.size >= size:  # and on this device
            return block
        del block  # first, so that there are not two unless an array of it is still held
        return np.empty(size + size // 4, dtype="uint8")


def share_workspace(layers: Iterable[Any]) -> None:
    """Give those of the layers that have a workspace the same one."""
    workspace = Workspace()
    for layer in layers:
        if getattr(layer, "workspace", None) is not None:
            layer.workspace = workspace


# --- products


def one_thread_if_small(a: Array, b: Array) -> AbstractContextManager:
    """Inside, products run on one thread if ``a @ b``, one step's product, is a small one.

    Threads that share so little wait for each other longer than they work, and while another
    program holds a core, for a time slice in every step: the run is then ten times slower.
    """
    if isinstance(a, numpy.ndarray) and a.size * b.shape[1] < SMALL_PRODUCT:
        return one_blas_thread()
    return nullcontext()


def blas_at_rest(W: Array) -> AbstractContextManager:
    """Inside, where products with ``W`` are compiled, they have the cores to themselves.

    NumPy's BLAS, which then has small products only, runs on one thread, in the whole program.
    """
    compiled = library(in_order(W)) is not None
    return one_blas_thread() if compiled else nullcontext()


def product(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """``a @ b`` of matrices (M, K) and (K, N), in ``out`` (M, N) if given, plus ``bias`` (N,).

    Compiled for float32 on the CPU where each of them, or its transpose, is contiguous and ``out``
    and ``bias`` are; else by NumPy or CuPy. ``out`` may lie in the memory of the others.

    Fewer than FEW_ROWS rows are multiplied one by one, which gives other bits than the same rows
    among more.

    Raises:
        ValueError: where the shapes do not fit or ``out`` is read-only.
    """
    (M, K), N = a.shape, b.shape[1]
    if out is not None and out.shape == (M, N) and shares_memory(out, a, b, bias):
        out[...] = product(a, b, bias=bias)
        return out
    C = np.empty((M, N), dtype=a.dtype) if out is None else out
    kernels = None
    if len(b) == K and C.shape == (M, N) and C.size * K > 0:
        kernels = library_to_write(C, in_order(a), in_order(b))
    if kernels is None or not _fits(bias, N):
        if on_device(C) and not C.flags.c_contiguous:  # CuPy would write a copy first
            np.matmul(b.T, a.T, out=C.T)
        else:
            np.matmul(a, b, out=C)
        if bias is not None:
            C += bias
    elif M == 1:
        _single_row(kernels, a, b, bias, C)
    elif M < FEW_ROWS:
        for row in range(M):
            _single_row(kernels, np.ascontiguousarray(a[row]), b, bias, C[row])
    else:
        _rows(kernels, a, b, bias, C)
    return C


def affine(xs: Array, W: Array, b: Array, out: Array) -> None:
    """``out`` (T, N, H) becomes xs W + b for all steps in one product; xs (T, N, D), b (H,)."""
    rows = len(xs) * xs.shape[1]
    product(xs.reshape(rows, -1), W, out.reshape(rows, -1), b)


def _fits(bias: Array | None, N: int) -> bool:
    return bias is None or (bias.shape == (N,) and library(bias) is not None)


def _single_row(kernels: Library, x: Array, B: Array, bias: Array | None, y: Array) -> None:
    """y = x B + bias for a single row x, (K,) or (1, K)."""
    (K, N), (row, column) = B.shape, B.strides
    x_at, B_at, bias_at, y_at = map(address, (x, B, bias, y))
    threads = num_threads() if K * N >= SMALL_MATRIX else 1
    kernels.vector_product(x_at, B_at, bias_at, y_at, row // 4, column // 4, K, N, threads)


def _rows(kernels: Library, A: Array, B: Array, bias: Array | None, C: Array) -> None:
    """C = A B + bias for FEW_ROWS rows or more."""
    (M, K), N = A.shape, B.shape[1]
    threads = num_threads() if M * K * N >= SMALL_PRODUCT else 1
    columns = kernels.panel_columns()
    panels = -(-N // columns)
    wide, depth = kernels.product_wide(), kernels.product_depth()
    parts = min(panels, threads * max(2, -(-panels // (wide * threads))))
    work = numpy.empty((threads, wide * depth, columns), dtype=numpy.float32)
    strides = [stride // 4 for stride in (*A.strides, *B.strides)]
    at = map(address, (A, B, bias, C, work))
    kernels.product(*at, *strides, M, K, N, parts, threads)


# --- whole windows; each returns whether it has done the work, on either device


def lstm_forward(
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    first: Sequence[Array],
    gates: Array,
    hs: Array,
    cs: Array,
    workspace: Workspace,
) -> bool:
    """Fill ``gates`` (T, N, 4H) with f, g, i, o, and the states after ``xs`` (T, N, D).

    Row 0 of hs and cs (T + 1, N, H) becomes the ``first`` states, h and c, in any case.
    """
    if on_device(hs) and device.lstm_forward(xs, Wx, Wh, b, first, gates, hs, cs):
        return True
    hs[0], cs[0] = first
    return _forward("lstm_forward", xs, Wx, Wh, b, (), gates, (hs, cs), workspace)


def gru_forward(
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    bhn: Array,
    first: Sequence[Array],
    gates: Array,
    hs: Array,
    hns: Array,
    workspace: Workspace,
) -> bool:
    """Fill ``gates`` (T, N, 3H) with r, z, n, ``hns`` (T, N, H), and hs (T + 1, N, H).

    Row 0 of hs becomes the ``first`` state in any case.
    """
    if on_device(hs) and device.gru_forward(xs, Wx, Wh, b, bhn, first, gates, hs, hns):
        return True
    (hs[0],) = first
    return _forward("gru_forward", xs, Wx, Wh, b, (bhn,), gates, (hs, hns), workspace)


def lstm_backward(
    Wh: Array,
    gates: Array,
    cs: Array,
    dhs: Array,
    dh: Array,
    dc: Array,
    dA: Array,
    workspace: Workspace,
) -> bool:
    """Write dA (T, N, 4H); dh and dc (N, H) go from the last states to the first, in place."""
    if on_device(dA):
        return device.lstm_backward(Wh, gates, cs, dhs, dh, dc, dA)
    return _backward("lstm_backward", Wh, (gates, cs, dhs), (dh, dc, dA), workspace)


def gru_backward(
    Wh: Array,
    gates: Array,
    hs: Array,
    hns: Array,
    dhs: Array,
    dh: Array,
    dA: Array,
    dAh: Array,
    workspace: Workspace,
) -> bool:
    """Write dA and dAh (T, N, 3H); dh (N, H) goes from the last state to the first, in place."""
    if on_device(dA):
        return device.gru_backward(Wh, gates, hs, hns, dhs, dh, dA, dAh)
    return _backward("gru_backward", Wh, (gates, hs, hns, dhs), (dh, dA, dAh), workspace)


def rnn_forward(
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    first: Sequence[Array],
    A: Array,
    hs: Array,
    relu: bool,
) -> bool:
    """Fill hs (T + 1, N, H) with the states after ``xs`` (T, N, D), on a GPU; A (T, N, H) is room.

    Row 0 becomes the ``first`` state in any case.
    """
    if on_device(hs) and device.rnn_forward(xs, Wx, Wh, b, first, A, hs, relu):
        return True
    (hs[0],) = first
    return False


def rnn_backward(Wh: Array, hs: Array, dhs: Array, dh: Array, relu: bool) -> Array | None:
    """The gradient dA (T, N, H) of xs Wx + b, by the kernels of a GPU; None where there are none.

    dh (N, H) goes from the last state to the first, in place.
    """
    if not on_device(hs):
        return None
    dA = np.empty_like(dhs)
    return dA if device.rnn_backward(Wh, hs, dhs, dh, dA, relu) else None


def _forward(
    name: str,
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    biases: tuple[Array, ...],
    gates: Array,
    outputs: tuple[Array, ...],
    workspace: Workspace,
) -> bool:
    (T, N, D), H = xs.shape, len(Wh)
    kernels = library(xs, Wx, Wh, b, *biases, gates, *outputs)
    if kernels is None or not writeable(gates, *outputs):
        return False
    packed = None
    if N * T >= FEW_ROWS:  # of fewer rows the kernel computes xs Wx + b itself
        affine(xs, Wx, b, out=gates)
        packed = _room_for_panels(kernels, Wh, workspace)
    at = map(address, (xs, Wx, b, Wh, *biases, gates, *outputs, packed))
    getattr(kernels, name)(*at, T, N, D, H, _threads_of_window(kernels, Wh, N))
    return True


def _backward(
    name: str,
    Wh: Array,
    read: tuple[Array, ...],
    written: tuple[Array, ...],
    workspace: Workspace,
) -> bool:
    arrays = (*read, *written)
    kernels = library(Wh, *arrays)
    T, N, _ = arrays[0].shape
    if kernels is None or not writeable(*written):
        return False
    packed = _room_for_panels(kernels, Wh, workspace)  # held by this name until the call is over
    at = map(address, (Wh, *arrays, packed))
    getattr(kernels, name)(*at, T, N, len(Wh), _threads_of_window(kernels, Wh, N))
    return True


def _threads_of_window(kernels: Library, Wh: Array, N: int) -> int:
    """How many threads share the units of a window of N sequences: at most one a panel."""
    if N * Wh.size < LARGE_STEP:
        return 1
    return min(num_threads(), -(-len(Wh) // kernels.panel_columns()))


def _room_for_panels(kernels: Library, Wh: Array, workspace: Workspace) -> Array:
    """Room for Wh by panels of columns, the last one filled up."""
    columns = kernels.panel_columns()
    return workspace.empty((-(-len(Wh) // columns), Wh.shape[1], columns), Wh.dtype)
