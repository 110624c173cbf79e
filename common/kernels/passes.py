"""Passes over whole arrays: the rows of an embedding's gradient, clipping, descent.

Compiled for float32 on the CPU, where the result does not depend on the number of threads; else by
NumPy or CuPy. An argument may lie in the memory of the array that is changed: the result is that of
NumPy on a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy

from common import kernels
from common.kernels import address, device, in_order
from common.np import Array, Scalar, in_one_piece, np, on_device
from common.row_gradient import RowGradient

__all__ = [
    "add_rows",
    "add_scaled",
    "all_finite",
    "clip",
    "descend",
    "draw",
    "drop",
    "norm",
    "scale",
    "subtract_at",
    "take_rows",
]

SMALL = 1 << 16  # elements; a pass over them takes as long as waking a thread
TINY = float(numpy.finfo(numpy.float32).tiny)  # below it float32 has fewer digits


def _threads(x: Array) -> int:
    return kernels.num_threads() if x.size >= SMALL else 1


def _library(x: Array, *others: Array) -> kernels.Library | None:
    """The kernels, if they can change ``x`` and all lie in memory in the same order."""
    if any((other.shape, other.strides) != (x.shape, x.strides) for other in others):
        return None
    return kernels.library_to_write(*map(in_order, (x, *others)))


def _side_by_side(x: Array, *others: Array) -> bool:
    """Whether the kernels of a GPU can run over ``x`` and all others side by side."""
    return on_device(x) and all(x.strides == other.strides for other in others)


def _apart(x: Array, y: Array) -> Array:
    """``y``, or a copy where it lies in the memory of ``x``, which is changed block by block."""
    return y.copy() if kernels.shares_memory(x, y) else y


def take_rows(table: Array, ids: Array) -> Array:
    """Copies of the rows ``table[ids]``, (V, D) and (...) -> (..., D).

    A single id may lie on the host, such as a token that was drawn there: a slice of the table on a
    device needs no transfer.
    """
    if isinstance(ids, numpy.ndarray) and not isinstance(table, numpy.ndarray):
        return table[int(ids.item())].copy().reshape(*ids.shape, -1)
    return table.take(ids, axis=0)  # faster than table[ids]


def add_rows(table: Array | RowGradient, ids: Array, rows: Array) -> None:
    """``table[ids[r]] += rows[r]`` for every r, where an id may occur many times.

    Args:
        table: (V, D), changed in place; of a ``RowGradient`` no other rows are touched.
        ids: (R,), each in 0 .. V - 1.
        rows: (R, D).

    Raises:
        ValueError: where the shapes do not fit or, on the CPU, an id is out of range.
    """
    if rows.shape != (len(ids), table.shape[1]):
        raise ValueError(
            f"add_rows: expected rows of shape ({len(ids)}, {table.shape[1]}), got {rows.shape}"
        )
    if isinstance(ids, numpy.ndarray) and ids.size:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= len(table):
            raise ValueError(
                f"add_rows: expected ids in 0..{len(table) - 1}, got {low if low < 0 else high}"
            )
    if isinstance(table, RowGradient):
        if len(table.ids):
            ids, rows = (np.concatenate(p) for p in ((table.ids, ids), (table.rows, rows)))
        table.set(*_added_up(ids, rows))
        return
    rows = _apart(table, rows)
    ids = ids if isinstance(table, numpy.ndarray) else np.asarray(ids)
    if on_device(table) and device.add_rows(table, ids, rows):
        return
    compiled = kernels.library_to_write(in_order(table), rows)
    if compiled is not None:
        ids = np.ascontiguousarray(ids, dtype="int64")
        at = map(address, (table, ids, rows))
        compiled.add_rows(*at, *(stride // 4 for stride in table.strides), *rows.shape)
        return
    # Equal ids are brought together by sorting and summed segment by segment.
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    if not isinstance(table, numpy.ndarray):
        _add_segments(table, sorted_ids, rows[order])
        return
    is_first = np.ones(len(ids), dtype=bool)
    is_first[1:] = sorted_ids[1:] != sorted_ids[:-1]
    starts = np.flatnonzero(is_first)
    table[sorted_ids[starts]] += np.add.reduceat(rows[order], starts, axis=0)


def _added_up(ids: Array, rows: Array) -> tuple[Array, Array]:
    """Ids (R,) and rows (R, D) as a ``RowGradient`` has them, the rows of one id added up."""
    if isinstance(rows, numpy.ndarray):
        ids, places = numpy.unique(ids, return_inverse=True)
        sums = numpy.zeros((len(ids), rows.shape[1]), dtype=rows.dtype)
    else:
        ids = np.asarray(ids)
        order = ids.argsort()
        ids, rows = ids[order], rows[order]
        places, sums = np.searchsorted(ids, ids), np.zeros_like(rows)
    add_rows(sums, places, rows)
    return ids, sums


def _add_segments(table: Array, ids: Array, sums: Array) -> None:
    """``add_rows`` of ids in ascending order on a GPU; ``sums`` has the rows and is overwritten.

    How many ids differ is not asked, since the host would wait for the answer. CuPy's ``reduceat``
    takes differences of one running sum, so that a large row costs all later ones their digits;
    ``add.at`` adds in an order that changes from run to run.

    Instead a segmented prefix sum (Hillis and Steele 1986): before a pass each row is the sum of
    the last ``distance`` rows of its segment up to itself, after it of twice as many. All rows of
    a segment then write the same value to the table, so their order does not matter.
    """
    distance = 1
    while distance < len(ids):
        same_segment = ids[distance:] == ids[:-distance]
        sums[distance:] += np.where(same_segment[:, None], sums[:-distance], 0)
        distance *= 2
    last = np.searchsorted(ids, ids, side="right") - 1
    table[ids] = table[ids] + sums[last]


def subtract_at(vector: Array, ids: Array, values: Array) -> None:
    """``vector[ids[r]] -= values[r]`` for every r; the vector is (V,), the others are (R,)."""
    if isinstance(vector, numpy.ndarray):
        sums = numpy.bincount(ids, weights=values, minlength=len(vector))
        vector -= sums.astype(vector.dtype)
    else:  # CuPy's bincount reads its size back
        add_rows(vector[:, None], ids, -values[:, None])


def add_scaled(x: Array, factor: Array | float, y: Array) -> None:
    """``x += factor * y`` in place; both of one shape."""
    y = _apart(x, y)
    compiled = _library(x, y)
    if compiled is not None:
        compiled.add_scaled(address(x), factor, address(y), x.size, _threads(x))
        return
    if _side_by_side(x, y) and device.add_scaled(in_order(x), factor, in_order(y)):
        return

    def work(rows: slice) -> None:
        x[rows] += factor * y[rows]

    kernels.over_rows(work, x)


def descend(x: Array, y: Array, target: Array, rate: Array, pull: Array) -> None:
    """``x -= rate * y - pull * (target - x)`` in place; all of one shape."""
    y, target, rate, pull = (_apart(x, array) for array in (y, target, rate, pull))
    compiled = _library(x, y, target, rate, pull)
    if compiled is not None:
        at = map(address, (x, y, target, rate, pull))
        compiled.descend(*at, x.size, _threads(x))
        return
    ordered = map(in_order, (x, y, target, rate, pull))
    if _side_by_side(x, y, target, rate, pull) and device.descend(*ordered):
        return

    def work(rows: slice) -> None:
        step = target[rows] - x[rows]
        step *= pull[rows]
        step -= rate[rows] * y[rows]
        x[rows] += step

    kernels.over_rows(work, x)


def scale(x: Array, factor: Array | float) -> None:
    """``x *= factor`` in place; ``factor`` is a number or an array without dimensions."""
    if isinstance(factor, numpy.ndarray):
        factor = _apart(x, factor)
    compiled = _library(x) if isinstance(x, numpy.ndarray) and _is_normal(factor) else None
    if compiled is not None:
        compiled.scale(address(x), factor, x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        x[rows] *= factor

    kernels.over_rows(work, x)


def drop(x: Array, kept: Array, factor: float, out: Array | None = None) -> Array:
    """``x * kept * factor``, in ``out`` if given.

    Args:
        x: (N, T, D) in memory time first, or any contiguous array.
        kept: booleans of that shape, or (N, 1, D) for all steps.
        factor: of what stays.
        out: of the shape of ``x``; may be ``x``.
    """
    if on_device(x):
        turned = x.ndim == 3
        ordered, mask = (a.swapaxes(0, 1) if turned else a for a in (x, kept))
        result = np.empty_like(ordered) if out is None else out.swapaxes(0, 1) if turned else out
        if device.drop(ordered, mask, factor, result):
            return result.swapaxes(0, 1) if turned else result
    y = np.multiply(x, kept, out=out)  # a byte each
    y *= factor
    return y


def clip(arrays: Sequence[Array], length: Scalar, max_norm: float) -> None:
    """Scale all ``arrays``, whose L2 norm is ``length``, to ``max_norm`` where it is longer."""
    arrays = _numbers(arrays)
    if arrays and on_device(arrays[0]):
        arrays = [x for x in arrays if not device.clip(in_order(x), length, max_norm)]
        if not arrays:
            return
    rate = np.minimum(max_norm / (length + 1e-6), 1)  # 1e-6 as in PyTorch
    if isinstance(rate, numpy.floating):  # known at no cost on the CPU only
        if rate == 1:
            return
        if rate < numpy.finfo(rate.dtype).tiny:  # too small to have all its digits
            rate = max_norm / numpy.float64(length)
    for array in arrays:
        scale(array, rate)


def _is_normal(factor: Scalar) -> bool:
    """Whether float32 holds it with all its digits, or it is 0, infinite or NaN."""
    return not 0 < abs(factor) < TINY


def norm(arrays: Sequence[Array]) -> Scalar:
    """The L2 norm of all elements of all arrays together, a scalar; an array may be rows alone.

    It has the arrays' dtype; float64 where that cannot hold it, and on a GPU. It is finite where
    all elements are, unless even float64 cannot hold it.
    """
    arrays = _numbers(arrays)
    if arrays and on_device(arrays[0]):
        found = device.norm([in_order(array) for array in arrays])
        if found is not None:
            return found
    with numpy.errstate(over="ignore"):  # it is computed again
        total = np.sqrt(sum(_squares(array) for array in arrays))
    # Above 1e-14 the squares that are lost below float32's least number, 1e-38, do not count.
    if not isinstance(total, numpy.floating) or 1e-14 < total < numpy.inf or numpy.isnan(total):
        return total
    # The squares of finite elements may be infinite, those of small ones 0: divide first.
    largest = max((float(abs(array).max()) for array in arrays if array.size), default=0.0)
    if largest == 0 or not math.isfinite(largest):
        return total
    squares = sum(float(np.square(x / numpy.float64(largest)).sum()) for x in arrays)
    exact = numpy.float64(largest) * math.sqrt(squares)
    with numpy.errstate(over="ignore"):
        rounded = total.dtype.type(exact)
    return rounded if numpy.isfinite(rounded) else exact


def _numbers(arrays: Sequence[Array | RowGradient]) -> list[Array]:
    """The arrays, in one piece if they lie so; in place of a ``RowGradient`` its rows, if any."""
    (pieces,) = in_one_piece(arrays)
    found = [x.rows if isinstance(x, RowGradient) else x for x in pieces]
    return [x for x in found if x.size]


def _squares(x: Array) -> Scalar:
    compiled = kernels.library(in_order(x))
    if compiled is not None:
        sums = numpy.empty(-(-x.size // compiled.vector_block()))
        compiled.squares(address(x), address(sums), x.size, _threads(x))
        return numpy.float32(sums.sum())
    flat = x.ravel(order="K")  # a view, whatever the memory order
    if isinstance(flat, numpy.ndarray):
        return np.dot(flat, flat)
    return np.square(flat, dtype="float64").sum()  # no look at a device's value


def all_finite(arrays: Iterable[Array | RowGradient]) -> bool:
    """Whether every number is finite; waits for the device."""
    numbers = (x.rows if isinstance(x, RowGradient) else x for x in arrays)
    return all(bool(np.isfinite(array).all()) for array in numbers)


def draw(library: kernels.Library, scores: numpy.ndarray, by: float, u: float) -> int:
    """An id from softmax(scores * by), without an array of weights; -1 where there is none.

    Args:
        library: the kernels.
        scores: float32 (V,).
        by: above 0.
        u: a uniform draw from [0, 1).
    """
    sums = numpy.empty(-(-len(scores) // library.draw_block()))
    return library.draw(address(scores), len(scores), by, u, address(sums))
