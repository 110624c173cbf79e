"""The gradient of a table of which a window has read few rows: the ids of those rows, and the rows.

An embedding of V words reads N T of them at most. As an array (V, D) its gradient would be zero but
for those, and all of it would be emptied, squared, scaled and added in every update. With the rows
alone an update takes the same time and memory whatever V is.

Shapes: V rows of a table, D its width, n rows that were read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.lib.mixins import NDArrayOperatorsMixin

from common.np import Array, np, to_cpu

__all__ = ["RowGradient", "dense"]

ZERO_AT_ZERO = numpy.negative, numpy.absolute, numpy.square, numpy.sqrt
TIED = "a tied weight has a gradient in every row: its embedding wants sparse=False"


class RowGradient(NDArrayOperatorsMixin):
    """Stands in a list of gradients for an array (V, D) that is zero but for a few rows.

    ``backward`` writes it in place, as an array: ``grad[...] = 0``, then ``add_rows`` of
    ``common.kernels.passes``. Norm, clipping, optimizers, averages and processes look at the rows
    alone.

    In NumPy's arithmetic it acts as the array. What keeps zeros, such as ``grad *= rate`` and
    ``np.sum(grad ** 2)``, and ``table -= rate * grad`` touch the rows alone; anything else makes
    the array first.

    Args:
        table: what it is the gradient of (V, D), for its shape and dtype.

    Attributes:
        ids: which rows (n,), ascending. On the CPU each stands there once. On a GPU one stands
            there as often as it was read, since the host would have to wait for their number.
        rows: their gradients (n, D). Of an id that stands there again the first row is the whole
            gradient, the others are zero.
        shape, dtype, ndim, size, nbytes: those of the array.

    Raises:
        ValueError: for a table that has not two axes.
    """

    ndim = 2

    def __init__(self, table: Array | RowGradient) -> None:
        if table.ndim != 2:
            raise ValueError(f"RowGradient: expected a table (V, D), got {table.shape}")
        self.shape: tuple[int, ...] = table.shape
        self.dtype: Any = table.dtype
        self.empty()

    # --- rows

    def empty(self) -> None:
        """Let all rows be zero."""
        self.set(np.zeros(0, dtype="int64"), np.zeros((0, self.shape[1]), dtype=self.dtype))

    def set(self, ids: Array, rows: Array) -> None:
        """Become ``rows`` (n, D) of ``ids`` (n,), as the attributes; they are taken, not copied."""
        self.ids, self.rows = ids, rows.astype(self.dtype, copy=False)

    def take(self, table: Array) -> Array:
        """Copies of the rows of ``table`` (V, ...) that were read (n, ...)."""
        return table.take(self.ids, axis=0)

    def put(self, table: Array, rows: Array) -> None:
        """Write ``rows`` (n, ...) into ``table`` (V, ...); of several of one id the first."""
        if not isinstance(self.ids, numpy.ndarray):  # else a device writes them in any order
            rows = rows[np.searchsorted(self.ids, self.ids)]
        table[self.ids] = rows

    def by_rows(self, rule: Callable[..., None]) -> Callable[..., None]:
        """An update rule that changes the rows alone that were read.

        Args:
            rule: takes a parameter, its gradient and its state, and changes all but the gradient.

        Returns:
            The same for a parameter (V, D), this gradient, and a state of arrays (V, D).
        """

        def change(param: Array, gradient: RowGradient, *state: Array) -> None:
            tables = param, *state
            part, *parts = (gradient.take(table) for table in tables)
            rule(part, gradient.rows, *parts)
            for table, rows in zip(tables, (part, *parts), strict=True):
                gradient.put(table, rows)

        return change

    # --- as an array

    @property
    def size(self) -> int:
        """V times D."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the array for which it stands."""
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> Array:
        """There is none.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"RowGradient: {TIED}")

    def dense(self) -> Array:
        """The array (V, D)."""
        table = np.zeros(self.shape, dtype=self.dtype)
        self.put(table, self.rows)
        return table

    def copy(self) -> RowGradient:
        """Another one with copies of ids and rows."""
        other = RowGradient(self)
        other.set(self.ids.copy(), self.rows.copy())
        return other

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, **options: Any) -> Any:
        """As of an array; ``np.sum`` calls it."""
        values = self.rows if axis is None else self.dense()
        return values.sum(axis=axis, dtype=dtype, out=out, **options)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"RowGradient({len(self.ids)} rows of {self.shape}, {self.dtype})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        if copy is False:
            raise ValueError("RowGradient: there is no array unless one is made")
        return to_cpu(self.dense()).astype(self.dtype if dtype is None else dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        return self.dense()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        """``grad[...] = value``: 0, another of its kind, or what has a value for every row.

        Raises:
            TypeError: for a part of it.
        """
        if index is not Ellipsis and not (isinstance(index, slice) and index == slice(None)):
            raise TypeError(f"RowGradient: expected grad[...] = value, got grad[{index}] = value")
        if isinstance(value, RowGradient):
            self.set(value.ids, value.rows.astype(self.dtype))
        elif isinstance(value, int | float) and value == 0:
            self.empty()
        else:
            table = np.empty(self.shape, dtype=self.dtype)
            table[...] = value
            ids = np.flatnonzero((table != 0).any(axis=1))
            self.set(ids, table[ids])

    def __array_ufunc__(
        self, function: numpy.ufunc, method: str, *inputs: Any, out: tuple = (), **options: Any
    ) -> Any:
        target = out[0] if out else None
        plain = method == "__call__" and not options
        if plain and function in (numpy.add, numpy.subtract) and target is inputs[0]:
            if not isinstance(target, RowGradient):  # table -= rate * grad
                (gradient,) = inputs[1:]
                rows = function(gradient.take(target), gradient.rows)
                gradient.put(target, rows.astype(target.dtype, copy=False))
                return target
            if not isinstance(inputs[1], RowGradient):
                raise ValueError(f"RowGradient: expected rows to add, got an array; {TIED}")
        result: Any
        if plain and _keeps_zeros(function, inputs):
            rows = function(*(x.rows if isinstance(x, RowGradient) else x for x in inputs))
            result = RowGradient(self)
            result.dtype = rows.dtype
            result.set(self.ids, rows)
        else:
            result = getattr(function, method)(*map(dense, inputs), **options)
        if target is None:
            return result
        target[...] = result
        return target


def dense(gradient: Any) -> Any:
    """The array (V, D) for which rows stand; what is an array already is returned."""
    return gradient.dense() if isinstance(gradient, RowGradient) else gradient


def _keeps_zeros(function: numpy.ufunc, inputs: Sequence[Any]) -> bool:
    """Whether the result is zero wherever the rows among ``inputs`` stand for zeros."""
    if len(inputs) == 1:
        return function in ZERO_AT_ZERO
    if len(inputs) > 2:
        return False
    first, second = inputs
    if isinstance(first, RowGradient) and isinstance(second, RowGradient):
        return function is numpy.multiply and first.ids is second.ids
    number = second if isinstance(first, RowGradient) else first
    if numpy.ndim(number) or not numpy.isfinite(number):
        return False
    if function is numpy.multiply:
        return True
    divides = function is numpy.true_divide and number != 0
    return number is second and (divides or (function is numpy.power and number > 0))
