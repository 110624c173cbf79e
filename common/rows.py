"""Rows added to the rows of a table by their ids: the gradient of an embedding."""

from __future__ import annotations

import numpy

from common import native
from common.np import Array, np

__all__ = ["add_rows"]


def add_rows(table: Array, ids: Array, rows: Array) -> None:
    """``table[ids[r]] += rows[r]`` for every r, where an id may occur many times.

    Args:
        table: (V, D), changed in place.
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
    kernels = native.library_to_write(native.in_order(table), rows)
    if kernels is not None:
        ids = np.ascontiguousarray(ids, dtype="int64")
        at = map(native.address, (table, ids, rows))
        kernels.add_rows(*at, *(stride // 4 for stride in table.strides), *rows.shape)
        return
    # Equal ids are brought together by sorting and summed segment by segment.
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    is_first = np.ones(len(ids), dtype=bool)
    is_first[1:] = sorted_ids[1:] != sorted_ids[:-1]
    starts = np.flatnonzero(is_first)
    table[sorted_ids[starts]] += np.add.reduceat(rows[order], starts, axis=0)
