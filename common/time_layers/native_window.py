"""What the compiled time loops need beside their arrays: a place for Wh, a number of threads."""

from __future__ import annotations

from common import native
from common.np import Array
from common.parallel import num_threads
from common.workspace import Workspace

LARGE_STEP = 1 << 19  # multiply-adds of a step that are worth meeting another thread for


def num_threads_for(kernels: native.Kernels, Wh: Array, N: int) -> int:
    """How many threads share the units of a window of N sequences."""
    if N * Wh.size < LARGE_STEP:
        return 1
    panels = -(-len(Wh) // kernels.panel_columns())  # a thread for each, at most
    return min(num_threads(), panels)


def packed_form(kernels: native.Kernels, Wh: Array, workspace: Workspace) -> Array:
    """Room for Wh by panels of columns, whatever the threads; the last one filled up."""
    columns = kernels.panel_columns()
    return workspace.empty((-(-len(Wh) // columns), Wh.shape[1], columns), Wh.dtype)
