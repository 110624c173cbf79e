"""The processes of a run that MPI started: who they are, and what they tell each other.

``mpiexec -n 4 python -m train.better_rnnlm`` starts four of them. MPI connects them (mpi4py), on
GPUs NCCL adds up what lies there (``common.nccl``). All do the same work in the same order: what
one process asks of all returns once every process has asked.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy

from common.nccl import DeviceArrays, use_device
from common.np import Array, np, to_cpu

__all__ = ["Processes", "connected"]

Value = TypeVar("Value")

INSTALL = 'pip install "time-layers[mpi]" brings mpi4py and MPICH'
PATIENCE = 15.0  # seconds without a beat after which a process counts as gone
BEAT = 1.0  # seconds between two beats, at most
POLL = 0.0005  # seconds between two looks at a call that may take long
GRACE = 3.0  # seconds for the first process to report an error that all have
FORWARD = 0.5  # seconds for the launcher to forward what was printed last


@functools.cache
def connected(number: int) -> Processes:
    """The processes of this run.

    Args:
        number: how many a launcher has started.

    Raises:
        RuntimeError: where mpi4py is missing, or belongs to another MPI than the launcher.
        ValueError: for a patience, TIMELAYERS_PATIENCE, that is not above 0.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise RuntimeError(
            f"{number} processes were started, but mpi4py cannot be used ({error}); {INSTALL}. "
            "One process needs neither"
        ) from error
    if MPI.COMM_WORLD.size != number:
        library = " ".join(MPI.Get_library_version().split()[:3])
        raise RuntimeError(
            f"{number} processes were started, but they do not find each other: the launcher is "
            f"not that of {library}, with which mpi4py works"
        )
    patience = os.environ.get("TIMELAYERS_PATIENCE", str(PATIENCE))
    try:
        seconds = float(patience)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"TIMELAYERS_PATIENCE: expected seconds above 0, got {patience!r}")
    return Processes(MPI.COMM_WORLD, seconds)


class Processes:
    """The processes of a run that MPI started, as one of them sees them.

    A thread sends beats to the next process, one every second or more, and listens for the one
    before. Where that is silent for ``patience`` seconds, all processes are ended.

    Args:
        comm: the communicator of mpi4py.
        patience: in seconds.

    Attributes:
        rank: the number of this process; 0 is the first, which writes and prints.
        size: how many there are, P.
        local: the number of this process among those of its machine.
        num_local: how many are on its machine.
    """

    def __init__(self, comm: Any, patience: float = PATIENCE) -> None:
        self.comm = comm
        self.rank, self.size = comm.rank, comm.size
        hosts = comm.allgather(platform.node())
        self.hosts: list[str] = hosts
        self.local = hosts[: self.rank].count(hosts[self.rank])
        self.num_local = hosts.count(hosts[self.rank])
        self.stderr = sys.stderr
        self.device: DeviceArrays | None = None  # adds up what lies on GPUs, once it is needed
        self._ending = threading.Event()
        self._beats = threading.Thread(
            target=self._listen, args=(comm.Dup(), patience), name="beats", daemon=True
        )
        self._beats.start()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def shares(self, N: int) -> list[int]:
        """How many of ``N`` streams each process has; the first ones one more if P divides not.

        Raises:
            ValueError: where there are fewer streams than processes.
        """
        if self.size > N:
            raise ValueError(
                f"expected a stream or more for each of {self.size} processes, got a batch of {N}"
            )
        return [N // self.size + (rank < N % self.size) for rank in range(self.size)]

    def rows(self, N: int) -> slice:
        """Which of ``N`` streams are this process's.

        Raises:
            ValueError: as ``shares`` does.
        """
        shares = self.shares(N)
        begin = sum(shares[: self.rank])
        return slice(begin, begin + shares[self.rank])

    # --- what all take part in

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns in the first process; the others wait without using their core."""
        value = make() if self.first else None
        self.wait()
        return self.comm.bcast(value)

    def wait(self) -> None:
        """Return once every process has come here."""
        request = self.comm.Ibarrier()
        while not request.Test():
            time.sleep(POLL)

    def of_all(self, value: Value) -> list[Value]:
        """The ``value`` of every process, in order."""
        return self.comm.allgather(value)

    def highest(self, *numbers: float) -> list[float]:
        """The highest of all processes, number by number."""
        mine, highest = numpy.array(numbers, dtype=numpy.float64), numpy.empty(len(numbers))
        self.comm.Allreduce(mine, highest, op=_mpi().MAX)
        return highest.tolist()

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """Begin to replace a contiguous ``array`` by the sum over all processes.

        Returns:
            What waits for the end of it. Until then the array must be left alone.
        """
        if not isinstance(array, numpy.ndarray):
            return self._of_devices().begin_sum(array)
        return self.comm.Iallreduce(_mpi().IN_PLACE, array).Wait

    def rows_of_all(self, rows: Array, numbers: Sequence[int]) -> Array:
        """The ``rows`` (R, ...) of every process below each other, in order of the processes.

        Args:
            rows: contiguous.
            numbers: how many rows each process has.
        """
        if not isinstance(rows, numpy.ndarray):
            return self._of_devices().rows_of_all(rows, numbers)
        everything = numpy.empty((sum(numbers), *rows.shape[1:]), dtype=rows.dtype)
        width = rows[:1].size if len(rows) else everything[:1].size
        counts = [number * width for number in numbers]
        self.comm.Allgatherv(rows, [everything, counts])
        return everything

    def copy_first(self, arrays: Sequence[Array]) -> None:
        """Fill ``arrays`` with those of the first process."""
        for array in arrays:
            whole = numpy.ascontiguousarray(to_cpu(array))
            self.comm.Bcast(whole)
            array[...] = np.asarray(whole)

    def use_device(self) -> None:
        """Compute on the GPU of this process from now on.

        Raises:
            RuntimeError: where there are fewer GPUs than processes on a machine.
        """
        use_device(self.local, self.num_local)

    def _of_devices(self) -> DeviceArrays:
        if self.device is None:
            self.device = DeviceArrays(self.rank, self.size, self.comm.bcast)
        return self.device

    # --- the end

    def end(self, code: int, message: str = "") -> NoReturn:
        """End all processes, since this one cannot go on.

        An error that every process has is told by the first: the others wait for it a little.

        Args:
            code: with which the launcher ends.
            message: for standard error.
        """
        if not self.first:
            time.sleep(GRACE)
        if message:
            where = f"process {self.rank + 1} of {self.size} on {self.hosts[self.rank]}: "
            print(f"{'' if self.first else where}{message}", file=self.stderr, flush=True)
        self._end(code)

    def _end(self, code: int) -> NoReturn:
        """MPI ends the others; its own words go nowhere."""
        threading.Timer(
            FORWARD + GRACE, os._exit, (code,)
        ).start()  # a network that is down may hold it up
        sys.stdout.flush()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        time.sleep(FORWARD)
        self.comm.Abort(code)
        os._exit(code)

    def leave(self) -> None:
        """Part in agreement, when every process has finished."""
        self.wait()
        self._ending.set()
        self._beats.join()

    def _listen(self, comm: Any, patience: float) -> None:
        """Send beats to the next process, expect them from the one before."""
        after, before = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        beat, heard = numpy.zeros(1, dtype=numpy.int8), time.monotonic()
        sent: Any = None
        while not self._ending.wait(min(BEAT, patience / 8)):
            if sent is None or sent.Test():
                sent = comm.Isend(beat, dest=after)
            while comm.Iprobe(source=before):
                comm.Recv(numpy.empty_like(beat), source=before)
                heard = time.monotonic()
            silent = time.monotonic() - heard
            if silent > patience:
                print(
                    f"error: process {before + 1} of {self.size} on {self.hosts[before]} has not "
                    f"answered for {silent:.0f} s; all processes end",
                    file=self.stderr,
                    flush=True,
                )
                self._end(1)


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI
