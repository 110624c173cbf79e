"""One block of memory that the layers of a model use in turns."""

from __future__ import annotations

import math
from collections.abc import Iterable

from common.np import Array, np

__all__ = ["Workspace", "share_workspace"]

ALIGNMENT = 64  # bytes between the beginnings of two arrays, a multiple of them


class Workspace:
    """Memory for what a layer needs for a moment, kept from one turn to the next.

    The largest arrays of a step are of that kind: the scores, between the two passes of the output
    layer; the gradients of the gates, within the backward pass of a recurrent layer. Each with
    memory of its own they would add up, and asking the system for it in every step takes time.

    The block is a quarter larger than the largest array that began a turn. What comes after that
    one and does not fit is not of the block.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._block: Array | None = None
        self._used = 0  # bytes of the block

    def begin(self) -> int:
        """Begin another turn; arrays of the turns before may be overwritten from now on.

        Returns:
            Its number: while ``turn`` is the same, the arrays are whole.
        """
        self.turn += 1
        self._used = 0
        return self.turn

    def empty(self, shape: tuple[int, ...], dtype: Array) -> Array:
        """An array of this turn, with anything in it."""
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


def share_workspace(layers: Iterable[object]) -> None:
    """Give those of the layers that have a workspace the same one."""
    workspace = Workspace()
    for layer in layers:
        if hasattr(layer, "workspace"):
            layer.workspace = workspace
