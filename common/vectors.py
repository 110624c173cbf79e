"""Passes over whole arrays, whatever their shape: what clipping and descent are made of.

Compiled for float32 on the CPU, where the result does not depend on the number of threads; else by
NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from common import native
from common.np import Array, np
from common.parallel import num_threads, over_rows

__all__ = ["add_scaled", "descend", "norm", "scale"]

SMALL = 1 << 16  # elements; a pass over them takes as long as waking a thread


def _threads(x: Array) -> int:
    return num_threads() if x.size >= SMALL else 1


def _kernels(x: Array, *others: Array) -> native.Kernels | None:
    """The kernels, if they can change ``x`` and all lie in memory in the same order."""
    if any((other.shape, other.strides) != (x.shape, x.strides) for other in others):
        return None
    return native.library_to_write(*map(native.in_order, (x, *others)))


def add_scaled(x: Array, factor: Array | float, y: Array) -> None:
    """``x += factor * y`` in place; both of one shape."""
    kernels = _kernels(x, y)
    if kernels is not None:
        kernels.add_scaled(native.address(x), factor, native.address(y), x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        x[rows] += factor * y[rows]

    over_rows(work, x)


def descend(x: Array, y: Array, target: Array, rate: Array, pull: Array) -> None:
    """``x -= rate * y - pull * (target - x)`` in place; all of one shape."""
    kernels = _kernels(x, y, target, rate, pull)
    if kernels is not None:
        at = map(native.address, (x, y, target, rate, pull))
        kernels.descend(*at, x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        step = target[rows] - x[rows]
        step *= pull[rows]
        step -= rate[rows] * y[rows]
        x[rows] += step

    over_rows(work, x)


def scale(x: Array, factor: Array | float) -> None:
    """``x *= factor`` in place."""
    kernels = _kernels(x)
    if kernels is not None:
        kernels.scale(native.address(x), factor, x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        x[rows] *= factor

    over_rows(work, x)


def norm(arrays: Sequence[Array]) -> Array:
    """The L2 norm of all elements of all arrays together, a scalar."""
    return np.sqrt(sum(_squares(array) for array in arrays))


def _squares(x: Array) -> Array:
    kernels = native.library(native.in_order(x))
    if kernels is not None:
        sums = numpy.empty(-(-x.size // kernels.vector_block()))
        kernels.squares(native.address(x), native.address(sums), x.size, _threads(x))
        with numpy.errstate(over="ignore"):  # infinite, as it is in float32
            return numpy.float32(sums.sum())
    flat = x.ravel(order="K")  # a view, whatever the memory order
    return np.dot(flat, flat)
