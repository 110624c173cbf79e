"""What the compiled time loops need beside their arrays: a place for Wh, a number of threads."""

from __future__ import annotations

from common import native
from common.np import Array, np
from common.parallel import num_threads

LARGE_STEP = 1 << 20  # multiply-adds of a step that are worth meeting another thread for


def num_threads_for(Wh: Array, N: int) -> int:
    """How many threads share the units of a window of N sequences."""
    return num_threads() if N * Wh.size >= LARGE_STEP else 1


def packed_form(kernels: native.Kernels, Wh: Array) -> Array:
    """Room for Wh by panels of columns, the last one filled up."""
    columns = kernels.panel_columns()
    return np.empty((-(-len(Wh) // columns), columns, Wh.shape[1]), dtype=Wh.dtype)
