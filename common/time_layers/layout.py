"""(N, T, ·) outside, (T, N, ·) inside."""

from __future__ import annotations

from common.np import Array, np


def time_major(xs: Array, dtype: Array = None) -> Array:
    """(N, T, ·) -> (T, N, ·), contiguous; no copy where :func:`batch_first` made ``xs``."""
    return np.ascontiguousarray(xs.swapaxes(0, 1), dtype=dtype)


def batch_first(xs: Array) -> Array:
    """(T, N, ·) -> (N, T, ·), a view."""
    return xs.swapaxes(0, 1)
