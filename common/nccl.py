"""Sums and rows of arrays that lie on GPUs, one process a GPU, by NCCL through CuPy.

The transfers run on a stream of their own, beside what the device computes. Nothing here waits on
the host: the stream that computes is told to wait for the transfer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from common.np import Array, memory_address, np

__all__ = ["DeviceArrays", "use_device"]

TYPES = {"f": "NCCL_FLOAT32", "d": "NCCL_FLOAT64", "i": "NCCL_INT32", "l": "NCCL_INT64"}


def use_device(local: int, num_local: int) -> None:
    """Compute on the GPU of this process from now on.

    Args:
        local: the number of this process among those of its machine.
        num_local: how many there are.

    Raises:
        RuntimeError: where there are fewer GPUs.
    """
    cuda = importlib.import_module("cupy.cuda")  # ``np.cuda`` would compute on the first GPU
    number = cuda.runtime.getDeviceCount()
    if num_local > number:
        raise RuntimeError(
            f"expected a GPU for each process, got {num_local} processes on a machine of {number}"
        )
    cuda.Device(local).use()


class DeviceArrays:
    """The GPUs of all processes, connected.

    Args:
        rank: the number of this process.
        size: how many there are.
        from_first: hands an object of the first process to all.

    Raises:
        RuntimeError: where CuPy has no NCCL.
    """

    def __init__(self, rank: int, size: int, from_first: Callable[[Any], Any]) -> None:
        self.nccl = importlib.import_module("cupy.cuda.nccl")  # ``import cupy`` leaves it out
        if not self.nccl.available:
            raise RuntimeError(
                "several GPUs need NCCL, which CuPy does not find: pip install nvidia-nccl-cu12 or "
                "nvidia-nccl-cu13 to match it"
            )
        self.rank = rank
        unique = from_first(self.nccl.get_unique_id() if rank == 0 else None)
        self.communicator = self.nccl.NcclCommunicator(size, unique, rank)
        self.stream = _cuda().Stream(non_blocking=True)

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """Begin to replace a contiguous ``array`` by the sum over all processes.

        Returns:
            What lets the device wait for the end of it.
        """
        kind, at = getattr(self.nccl, TYPES[array.dtype.char]), memory_address(array)
        self._after_what_was_asked()
        self.communicator.allReduce(at, at, array.size, kind, self.nccl.NCCL_SUM, self.stream.ptr)
        done = self.stream.record()
        return lambda: _cuda().get_current_stream().wait_event(done)

    def rows_of_all(self, rows: Array, numbers: Sequence[int]) -> Array:
        """The ``rows`` (R, ...) of every process below each other, in order of the processes."""
        kind = getattr(self.nccl, TYPES[rows.dtype.char])
        everything = np.empty((sum(numbers), *rows.shape[1:]), dtype=rows.dtype)
        width = everything.size // max(1, len(everything))
        self._after_what_was_asked()
        self.nccl.groupStart()
        begin = memory_address(everything)
        for root, number in enumerate(numbers):
            own = memory_address(rows) if root == self.rank else begin
            self.communicator.broadcast(own, begin, number * width, kind, root, self.stream.ptr)
            begin += number * width * rows.dtype.itemsize
        self.nccl.groupEnd()
        _cuda().get_current_stream().wait_event(self.stream.record())
        return everything

    def _after_what_was_asked(self) -> None:
        """Let the transfers wait for what the device was asked to compute before."""
        self.stream.wait_event(_cuda().get_current_stream().record())


def _cuda() -> Any:
    return np.cuda  # type: ignore[attr-defined]
