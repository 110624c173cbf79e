"""The CUDA kernels of ``cuda``: compiled by CuPy at their first use, chosen and launched here.

Every function takes contiguous float32 arrays of a device and says whether it has done the work.
For other arrays, and with ``TIMELAYERS_CUDA=0``, it has not: CuPy then does it, by the lines that
stand beside the call. ``choices`` tells what was chosen.

A window of an LSTM or a GRU is one launch where the recurrent weights fit into the shared memory of
all multiprocessors together, spread over blocks that run side by side (a cooperative launch). Else
each of its steps is a product of cuBLAS and a kernel for the rest.

Shapes: N batch, T time steps, D input width, H hidden width, V vocabulary.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from common.np import Array
from common.np import np as array_module

__all__ = [
    "FILES",
    "OPTIONS",
    "Window",
    "add_rows",
    "add_scaled",
    "choices",
    "clip",
    "descend",
    "drop",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "norm",
    "philox_keep",
    "plan",
    "rnn_backward",
    "rnn_forward",
    "softmax_with_loss",
    "source",
    "takes_scores",
    "tell_choices",
]

np: Any = array_module  # with what CuPy alone has

FOLDER = Path(__file__).parent
FILES = sorted(path.stem for path in (FOLDER / "cuda").glob("*.cu"))
OPTIONS = ("-std=c++17",)
SWITCH = "TIMELAYERS_CUDA"
ON, OFF = ("1", "on", "true", "yes"), ("0", "off", "false", "no")
FLOAT32 = numpy.dtype(numpy.float32)

BLOCK = 256  # threads of a block where each does its work alone
THREADS = 512  # of a block of a window at most, as window.h says
TILE = 4  # rows and columns of the sums of a thread, as there
ROWS = 32  # sequences that a block of a window takes at a time, at most
UNITS = 4  # of a block of a window, at least: few blocks meet sooner
LEAST_DEPTH = 32  # columns of its left-hand matrix that a block takes at a time, or it is too slow
CHUNK = 4096  # elements whose squares a block adds up, as vectors.cu says
MOST_BLOCKS = 1024  # of a pass whose threads take several elements each
SUMS_OF_A_THREAD = 64  # multiply-adds in a step; a block of fewer has fewer threads

_chosen: dict[str, str] = {}
_tell: Callable[[str], Any] | None = None


def choices() -> dict[str, str]:
    """What has been chosen so far for each kind of work, in words."""
    return dict(_chosen)


def tell_choices(tell: Callable[[str], Any]) -> None:
    """Call ``tell`` with a line for each choice that is made from now on."""
    global _tell
    _tell = tell


def _choose(what: str, how: str) -> None:
    """Note how a kind of work is done, and say it where it was done otherwise before, or not."""
    if _chosen.get(what) != how:
        _chosen[what] = how
        if _tell is not None:
            _tell(f"| {what}: {how}")


# --- sources and launches


@functools.cache
def source(file: str) -> str:
    """The text of ``cuda/FILE.cu`` with all that it includes: what NVRTC and CuPy's cache read."""
    seen: set[Path] = set()

    def read(path: Path) -> str:
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            included = re.match(r'#include "([\w.]+)"', line)
            if included is None:
                lines.append("" if line == "#pragma once" else line)
                continue
            folders = (FOLDER / "cuda", FOLDER / "c")
            found = next(f / included[1] for f in folders if (f / included[1]).exists())
            if found not in seen:
                seen.add(found)
                lines.append(read(found))
        return "\n".join(lines)

    return read(FOLDER / "cuda" / f"{file}.cu")


@functools.cache
def _wanted() -> bool:
    """What the environment says.

    Raises:
        ValueError: for a value that is neither yes nor no.
    """
    switch = os.environ.get(SWITCH) or "1"
    if switch.lower() not in ON + OFF:
        raise ValueError(f"{SWITCH}: expected one of {', '.join(ON + OFF)}, got {switch!r}")
    return switch.lower() in ON


def _suits(what: str, *arrays: Array) -> bool:
    """Whether the kernels can take all ``arrays``; says so in ``choices``."""
    reason = ""
    if not _wanted():
        reason = f"{SWITCH}={os.environ[SWITCH]}"
    elif odd := {str(x.dtype) for x in arrays if x.dtype != FLOAT32}:
        reason = f"the kernels are for float32, not for {odd.pop()}"
    elif not all(x.flags.c_contiguous for x in arrays):
        reason = "an array is not contiguous"
    elif not all(x.size for x in arrays):
        reason = "an array is empty"
    if reason:
        _choose(what, f"CuPy: {reason}")
    return not reason


@functools.cache
def _module(raw_module: Any, file: str, cooperative: bool) -> Any:
    """``raw_module`` is CuPy's class; a device compiles when it is first asked for a kernel."""
    return raw_module(code=source(file), options=OPTIONS, enable_cooperative_groups=cooperative)


@functools.cache
def _kernel(raw_module: Any, file: str, name: str, device: int) -> Any:
    """A kernel whose blocks do not wait for each other."""
    return _module(raw_module, file, False).get_function(name)


@functools.cache
def _window_kernel(raw_module: Any, file: str, name: str, device: int) -> Any:
    """A kernel whose blocks run side by side, with as much shared memory as the device can give."""
    kernel = _module(raw_module, file, True).get_function(name)
    _, kernel.max_dynamic_shared_size_bytes = _attributes(np.cuda.Device, device)
    return kernel


def _launch(file: str, name: str, size: int, *args: Any) -> None:
    """One thread for each of ``size`` elements; integers among ``args`` are int64 there."""
    _launch_blocks(file, name, _ceil(size, BLOCK), BLOCK, 0, *args)


def _launch_blocks(
    file: str, name: str, blocks: int, threads: int, bytes_each: int, *args: Any
) -> None:
    """So many blocks, with so many bytes of shared memory for each of their threads."""
    kernel = _kernel(np.RawModule, file, name, np.cuda.Device().id)
    kernel((blocks,), (threads,), _as_arguments(args), shared_mem=bytes_each * threads)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _as_arguments(args: Sequence[Any]) -> tuple:
    return tuple(numpy.int64(x) if isinstance(x, int) else x for x in args)


@functools.cache
def _attributes(device_class: Any, device: int) -> tuple[int, int]:
    """Multiprocessors, and the shared memory of a block in bytes: 0 without cooperative launch."""
    about = device_class(device).attributes
    shared = about["MaxSharedMemoryPerBlockOptin"] if about["CooperativeLaunch"] else 0
    return about["MultiProcessorCount"], shared


@functools.cache
def _counters(array_class: Any, device: int) -> Array:
    """What the blocks of a window meet at; zeros between launches, which one stream orders."""
    return np.zeros(2, dtype="uint32")


# --- whole windows


@dataclass(frozen=True)
class Window:
    """How a window is spread over blocks that run side by side, each with some units.

    Attributes:
        blocks: how many.
        threads: of a block.
        units: of a block; the last may have fewer.
        rows: sequences that a block takes at a time.
        depth: columns of the left-hand matrix that a block takes at a time.
        shared: bytes of shared memory of a block.
    """

    blocks: int
    threads: int
    units: int
    rows: int
    depth: int
    shared: int


@functools.cache
def plan(N: int, H: int, per_unit: int, K: int, multiprocessors: int, memory: int) -> Window | None:
    """The window that fits, or None.

    Args:
        N: sequences.
        H: units.
        per_unit: columns that a unit has in the product.
        K: how deep the product is.
        multiprocessors: of the device; each runs one block.
        memory: bytes of shared memory that a block may have.
    """
    units = min(H, max(UNITS, _ceil(H, multiprocessors)))
    columns, rows = units * per_unit, min(N, ROWS)
    while rows > 1 and _ceil(rows, TILE) * _ceil(columns, TILE) > THREADS:
        rows -= 1
    tiles = _ceil(rows, TILE) * _ceil(columns, TILE)
    work = _ceil(rows * columns * K, SUMS_OF_A_THREAD)
    weights, whole = columns * _padded(K), _ceil(K, TILE) * TILE
    room = memory // 4 - weights
    threads = min(THREADS, 32 * max(2, _ceil(work, 32), _ceil(tiles, 32)))
    threads = min(threads, room // TILE**2 // 32 * 32)  # each leaves a tile of partial sums
    depth = min(whole, (room // rows - TILE) // 8 * 8)
    if tiles > threads or depth < min(LEAST_DEPTH, whole):
        return None
    if depth < whole:  # each part in as many fours for every group of threads
        at_once = TILE * (threads // tiles)
        depth = max(1, depth // at_once) * at_once if at_once <= depth else depth
    scratch = max(rows * _padded(depth), TILE**2 * threads)
    return Window(_ceil(H, units), threads, units, rows, depth, 4 * (weights + scratch))


def _padded(count: int) -> int:
    """As in window.h."""
    return (count + 3) // 4 * 4 | 4


def _window(what: str, N: int, H: int, per_unit: int, K: int) -> Window | None:
    """What ``plan`` finds for the current device; says so in ``choices``."""
    multiprocessors, memory = _attributes(np.cuda.Device, np.cuda.Device().id)
    window = plan(N, H, per_unit, K, multiprocessors, memory)
    if window is None:
        _choose(what, f"a kernel a step: the weights of {H} units do not fit into shared memory")
    else:
        kib = _ceil(window.shared, 1024)
        _choose(what, f"a window in one launch, {window.blocks} blocks with {kib} KiB each")
    return window


def _run(window: Window, file: str, name: str, T: int, N: int, H: int, *arrays: Array) -> None:
    """Launch the kernel of a whole window."""
    device = np.cuda.Device().id
    kernel = _window_kernel(np.RawModule, file, name, device)
    sizes = T, N, H, window.units, window.rows, window.depth
    args = _as_arguments((*arrays, _counters(np.ndarray, device), *sizes))
    kernel((window.blocks,), (window.threads,), args, shared_mem=window.shared)


def lstm_forward(
    xs: Array,
    Wx: Array,
    Wh: Array,
    b: Array,
    first: Sequence[Array],
    gates: Array,
    hs: Array,
    cs: Array,
) -> bool:
    """As ``common.kernels.lstm_forward``."""
    if not _suits("LSTM forward", xs, Wx, Wh, b, *first, gates, hs, cs):
        return False
    (T, N, _), H = xs.shape, len(Wh)
    _project(xs, Wx, gates)
    window = _window("LSTM forward", N, H, 4, H)
    if window is not None:
        _run(window, "lstm", "lstm_window_forward", T, N, H, Wh, b, *first, gates, hs, cs)
        return True
    hs[0], cs[0] = first
    product = np.empty_like(gates[0])
    for t in range(T):
        np.matmul(hs[t], Wh, out=product)
        arrays = product, b, cs[t], gates[t], cs[t + 1], hs[t + 1]
        _launch("lstm", "lstm_step_forward", N * H, *arrays, N, H)
    return True


def lstm_backward(
    Wh: Array, gates: Array, cs: Array, dhs: Array, dh: Array, dc: Array, dA: Array
) -> bool:
    """As ``common.kernels.lstm_backward``."""
    if not _suits("LSTM backward", Wh, gates, cs, dhs, dh, dc, dA):
        return False
    T, N, H = dhs.shape
    window = _window("LSTM backward", N, H, 1, 4 * H)
    if window is not None:
        arrays = Wh, gates, cs, dhs, dh, dc, dA
        _run(window, "lstm", "lstm_window_backward", T, N, H, *arrays)
        return True
    for t in reversed(range(T)):
        arrays = gates[t], cs[t], cs[t + 1], dhs[t], dh, dc, dA[t]
        _launch("lstm", "lstm_step_backward", N * H, *arrays, N, H)
        np.matmul(dA[t], Wh.T, out=dh)
    return True


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
) -> bool:
    """As ``common.kernels.gru_forward``."""
    if not _suits("GRU forward", xs, Wx, Wh, b, bhn, *first, gates, hs, hns):
        return False
    (T, N, _), H = xs.shape, len(Wh)
    _project(xs, Wx, gates)
    window = _window("GRU forward", N, H, 3, H)
    if window is not None:
        _run(window, "gru", "gru_window_forward", T, N, H, Wh, b, bhn, *first, gates, hs, hns)
        return True
    (hs[0],) = first
    product = np.empty_like(gates[0])
    for t in range(T):
        np.matmul(hs[t], Wh, out=product)
        arrays = product, b, bhn, hs[t], gates[t], hns[t], hs[t + 1]
        _launch("gru", "gru_step_forward", N * H, *arrays, N, H)
    return True


def gru_backward(
    Wh: Array, gates: Array, hs: Array, hns: Array, dhs: Array, dh: Array, dA: Array, dAh: Array
) -> bool:
    """As ``common.kernels.gru_backward``."""
    if not _suits("GRU backward", Wh, gates, hs, hns, dhs, dh, dA, dAh):
        return False
    T, N, H = dhs.shape
    window = _window("GRU backward", N, H, 1, 3 * H)
    if window is not None:
        arrays = Wh, gates, hs, hns, dhs, dh, dA, dAh
        _run(window, "gru", "gru_window_backward", T, N, H, *arrays)
        return True
    product = np.zeros_like(dh)
    for t in reversed(range(T)):
        arrays = gates[t], hns[t], hs[t], dhs[t], product, dh, dA[t], dAh[t]
        _launch("gru", "gru_step_backward", N * H, *arrays, N, H)
        np.matmul(dAh[t], Wh.T, out=product)
    dh += product
    return True


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
    """As ``common.kernels.rnn_forward``."""
    if not _suits("RNN forward", xs, Wx, Wh, b, *first, A, hs):
        return False
    (T, N, _), H = xs.shape, len(Wh)
    _project(xs, Wx, A)
    _choose("RNN forward", "a kernel a step")
    (hs[0],) = first
    product = np.empty_like(A[0])
    for t in range(T):
        np.matmul(hs[t], Wh, out=product)
        arrays = A[t], product, b, hs[t + 1]
        _launch("rnn", "rnn_step_forward", N * H, *arrays, N, H, int(relu))
    return True


def rnn_backward(Wh: Array, hs: Array, dhs: Array, dh: Array, dA: Array, relu: bool) -> bool:
    """As ``common.kernels.rnn_backward``."""
    if not _suits("RNN backward", Wh, hs, dhs, dh, dA):
        return False
    T, N, H = dhs.shape
    _choose("RNN backward", "a kernel a step")
    for t in reversed(range(T)):
        _launch("rnn", "rnn_step_backward", N * H, hs[t + 1], dhs[t], dh, dA[t], N, H, int(relu))
        np.matmul(dA[t], Wh.T, out=dh)
    return True


def _project(xs: Array, Wx: Array, gates: Array) -> None:
    """``gates`` (T, N, kH) becomes xs Wx in one product; the kernels add the bias."""
    rows = len(xs) * xs.shape[1]
    np.matmul(xs.reshape(rows, -1), Wx, out=gates.reshape(rows, -1))


# --- rows of a table


def add_rows(table: Array, ids: Array, rows: Array) -> bool:
    """``table[ids[r]] += rows[r]``, in the order of r; as ``common.kernels.passes.add_rows``."""
    fits = ids.dtype.name in ("int32", "int64") and ids.flags.c_contiguous
    ordered = table if table.flags.c_contiguous else table.T
    if not fits or not _suits("rows of a gradient", ordered, rows):
        return False
    _choose("rows of a gradient", "a kernel, by sorted ids")
    row, column = (stride // table.itemsize for stride in table.strides)
    order = ids.argsort()  # stable in CuPy
    threads = min(BLOCK, 32 * _ceil(table.shape[1], 32))
    args = table, ids, order, rows, row, column, len(ids), table.shape[1]
    _launch_blocks("rows", f"add_rows_{ids.dtype.name}", len(ids), threads, 0, *args)
    return True


# --- softmax with loss


def takes_scores(ts: Array, *arrays: Array) -> bool:
    """Whether ``softmax_with_loss`` can be called for such targets, and scores like ``arrays``."""
    if ts.dtype.name not in ("int32", "int64") or not _suits("softmax with loss", *arrays):
        return False
    _choose("softmax with loss", "a kernel, two passes over the scores")
    return True


def softmax_with_loss(
    S: Array, b: Array, ts: Array, ignore_label: int, keep_gradient: bool
) -> tuple[Array, Array]:
    """The losses of scores ``S`` + ``b``; ``S`` becomes the gradient of their mean if asked.

    Args:
        S: (T N, V), the rows of a step side by side.
        b: (V,).
        ts: targets (N, T), in any order in memory. One that is neither a class nor
            ``ignore_label`` makes the loss NaN.
        ignore_label: the target that counts for nothing.
        keep_gradient: whether ``S`` is written.

    Returns:
        Their mean, a scalar, and, in float64, the loss of each row (T N,), 0 where ignored, and
        behind them the number of targets that count.
    """
    (N, _), (R, V) = ts.shape, S.shape
    losses, loss = np.empty(R + 1, dtype="float64"), np.empty((), dtype="float64")
    to_n, to_t = (stride // ts.itemsize for stride in ts.strides)
    threads = min(THREADS, max(32, 1 << (V // 8).bit_length()))
    args = S, b, ts, losses, N, to_n, to_t, int(ignore_label), V, int(keep_gradient)
    _launch_blocks("output", f"softmax_with_loss_{ts.dtype.name}", R, threads, 12, *args)
    _launch_blocks("output", "mean_loss", 1, 32 if R < BLOCK else BLOCK, 8, losses, loss, R)
    return loss, losses


# --- passes over whole arrays


def add_scaled(x: Array, factor: Array | float, y: Array) -> bool:
    """``x += factor * y``; both contiguous in the same order, the factor on the host."""
    if hasattr(factor, "get") or not _suits("passes over arrays", x, y):
        return False
    _launch("vectors", "add_scaled", x.size, x, numpy.float32(factor), y, x.size)
    return _done_by_a_kernel()


def descend(x: Array, y: Array, target: Array, rate: Array, pull: Array) -> bool:
    """``x -= rate * y - pull * (target - x)``; all contiguous in the same order."""
    if not _suits("passes over arrays", x, y, target, rate, pull):
        return False
    _launch("vectors", "descend", x.size, x, y, target, rate, pull, x.size)
    return _done_by_a_kernel()


def norm(arrays: Sequence[Array]) -> Array | None:
    """The L2 norm of all elements of all arrays together, a float64 scalar; None without kernel."""
    if not _suits("passes over arrays", *arrays):
        return None
    blocks = [_ceil(array.size, CHUNK) for array in arrays]
    sums, result = np.empty(sum(blocks), dtype="float64"), np.empty((), dtype="float64")
    first = 0
    for array, count in zip(arrays, blocks, strict=True):
        threads = BLOCK if array.size > BLOCK else 32
        args = array, sums[first : first + count], array.size
        _launch_blocks("vectors", "squares", count, threads, 8, *args)
        first += count
    _launch_blocks("vectors", "root_of_sum", 1, BLOCK if first > 32 else 32, 8, sums, result, first)
    _done_by_a_kernel()
    return result


def clip(x: Array, length: Array, max_norm: float) -> bool:
    """``x *= min(max_norm / (length + 1e-6), 1)``.

    Args:
        x: gradients.
        length: the norm of all gradients, a float64 scalar on the device.
        max_norm: bound of it.
    """
    if length.dtype != numpy.float64 or not _suits("passes over arrays", x):
        return False
    blocks = min(_ceil(x.size, BLOCK), MOST_BLOCKS)
    args = x, length, numpy.float64(max_norm), x.size
    _launch_blocks("vectors", "clip", blocks, BLOCK, 0, *args)
    return _done_by_a_kernel()


def _done_by_a_kernel() -> bool:
    _choose("passes over arrays", "a kernel")
    return True


# --- random bits and what they drop


def philox_keep(
    shape: tuple[int, int, int],
    threshold: int,
    bits: int,
    seed: int,
    layer: int,
    iteration: int,
    first_stream: int,
) -> Array | None:
    """Booleans (T, N, D), the mask of ``common.kernels.philox.keep``; None without kernel.

    Args:
        shape: (N, T, D).
        threshold: draws below it drop.
        bits: of a draw, 8 or 16.
        seed: as for ``keep``.
        layer: as there.
        iteration: as there.
        first_stream: as there.
    """
    N, T, D = shape
    if not _draws() or not N * T * D:
        return None
    kept = np.empty((T, N, D), dtype=bool)
    place = numpy.uint64(seed), layer, iteration & 0xFFFFFFFF, first_stream
    threads = N * _ceil(T * D * bits, 128)
    _launch("philox", "philox_keep", threads, kept, *place, N, T, D, threshold, bits // 8)
    return kept


def _draws() -> bool:
    wanted = _wanted()
    _choose("masks", "a kernel" if wanted else f"CuPy: {SWITCH}={os.environ[SWITCH]}")
    return wanted


def drop(x: Array, kept: Array, factor: float, out: Array) -> bool:
    """``out = x * kept * factor``; ``kept`` has one step of x (T, N, D), or all."""
    if kept.dtype != bool or not kept.flags.c_contiguous or not _suits("dropping", x, out):
        return False
    _choose("dropping", "a kernel")
    _launch("philox", "drop", x.size, out, x, kept, numpy.float32(factor), kept.size, x.size)
    return True
