"""Passes over whole arrays, whatever their shape: what clipping and descent are made of.

Compiled for float32 on the CPU; else by NumPy or CuPy. The result does not depend on the number of
threads.
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


def add_scaled(x: Array, factor: Array | float, y: Array) -> None:
    """``x += factor * y`` in place; both of one shape."""
    kernels = native.library(native.in_order(x), native.in_order(y))
    if kernels is not None and x.strides == y.strides:
        kernels.add_scaled(native.address(x), factor, native.address(y), x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        x[rows] += factor * y[rows]

    over_rows(work, x)


def descend(x: Array, y: Array, target: Array, rate: Array, pull: Array) -> None:
    """``x -= rate * y - pull * (target - x)`` in place; all of one shape."""
    arrays = (x, y, target, rate, pull)
    kernels = native.library(*map(native.in_order, arrays))
    if kernels is not None and len({array.strides for array in arrays}) == 1:
        kernels.descend(*map(native.address, arrays), x.size, _threads(x))
        return

    def work(rows: slice) -> None:
        step = target[rows] - x[rows]
        step *= pull[rows]
        step -= rate[rows] * y[rows]
        x[rows] += step

    over_rows(work, x)


def scale(x: Array, factor: Array | float) -> None:
    """``x *= factor`` in place."""
    kernels = native.library(native.in_order(x))
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
        return numpy.float32(sums.sum())
    flat = x.ravel(order="K")  # a view, whatever the memory order
    return np.dot(flat, flat)
