"""The process that works on a run: the signals that it gets, and the processes beside it.

Ctrl-C, SIGTERM, a terminal that closes: the first signal asks it to stop where the run can go on
later, the second ends it. Where ``mpiexec`` has started several processes, they share the work and
stop together.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from common import kernels
from common.data_parallel import DataParallelTrainer, share_cores
from common.plotting import say
from common.processes import Processes, connected
from common.trainer import RnnlmTrainer

__all__ = ["OneProcess", "Stopped", "is_first", "number_started", "this_process"]

Value = TypeVar("Value")

# How many processes there are, and which this is, by MPICH and whatever follows its interface, by
# Open MPI, and by Slurm's srun.
NUMBERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.append(signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The run has been told to stop; ``exit_code`` is what a shell expects then."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def number_started() -> int:
    """How many processes a launcher has started, by the environment; 1 where there is none."""
    return max(1, *_numbers(NUMBERS))


def is_first() -> bool:
    """Whether this process is the one of those that is heard, by the environment."""
    return max(_numbers(RANKS)) == 0


def _numbers(names: tuple[str, ...]) -> list[int]:
    """What the variables ``names`` say, 0 where one says nothing."""
    values = [os.environ.get(name, "") for name in names]
    return [int(value) if value.isdecimal() else 0 for value in values]


def this_process() -> OneProcess:
    """The process that calls, alone or as one of several that a launcher has started.

    Raises:
        RuntimeError, ValueError: as ``common.processes.connected`` does.
    """
    number = number_started()
    return OneProcess() if number == 1 else OneOfMany(connected(number))


class OneProcess:
    """Within ``with OneProcess() as process`` a first signal is noted, a second raises Stopped.

    The run asks ``process.received`` where it can stop. Outside the main thread, where Python
    allows no handlers, nothing is ever received. A signal that was ignored stays ignored (nohup).

    Attributes:
        received: the first signal, or None.
        at_once: set where there is nothing to finish: the first signal raises, too.
        size: how many processes work on the run.
        first: whether this is the one that writes and prints.
        trainer: what trains here, called like ``RnnlmTrainer``.
    """

    size = 1
    first = True
    trainer: Callable[..., RnnlmTrainer] = RnnlmTrainer

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                before = signal.getsignal(signum)
                if before not in (signal.SIG_IGN, None):
                    self._before[signum] = before
                    signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.at_once or self.received is not None:
            raise Stopped(signum)
        self.received = signum
        if not self.first:
            return
        # print() may be what was interrupted, and does not let itself be called again then.
        with suppress(OSError):  # nobody may read it any more
            os.write(2, b"\nstopping here; once more stops at once\n")

    def check(self) -> None:
        """Raise Stopped if a signal has been received."""
        if self.received is not None:
            raise Stopped(self.received)

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns in the first process; it is called there alone."""
        return make()

    def agree(self, due: bool) -> bool:
        """Whether ``due`` holds in any process; a signal that one has received counts for all."""
        return due

    def begin(self, model: Any, batch_size: int, verbose: bool) -> None:
        """Get ready to compute: compile the kernels, share what there is to share, say so.

        Args:
            model: takes over the weights of the first process.
            batch_size: streams N.
            verbose: whether to say what each process does, and what a GPU computes by which kernel.

        Raises:
            RuntimeError: where processes compute otherwise than the first.
            ValueError: where there are fewer streams than processes.
        """
        kernels.prepare()
        kernels.print_notice()
        if verbose:
            kernels.device.tell_choices(say)

    def use_device(self) -> None:
        """Compute on the GPU of this process from now on.

        Raises:
            RuntimeError: where there are fewer GPUs than processes on a machine.
        """


class OneOfMany(OneProcess):
    """One of several processes: all make the same calls in the same order.

    Args:
        processes: all of them, connected.
    """

    def __init__(self, processes: Processes) -> None:
        super().__init__()
        self.processes = processes
        self.size, self.first = processes.size, processes.first
        self.from_first = processes.from_first  # type: ignore[method-assign]
        self.use_device = processes.use_device  # type: ignore[method-assign]
        self.trainer = partial(DataParallelTrainer, processes=processes)

    def check(self) -> None:
        """Raise Stopped if any process has received a signal."""
        self.agree(False)
        super().check()

    def agree(self, due: bool) -> bool:
        """Whether ``due`` holds in any process; a signal that one has received counts for all."""
        received, anyone = self.processes.highest(self.received or 0, due)
        if received:
            self.received = int(received)
        return anyone > 0

    def begin(self, model: Any, batch_size: int, verbose: bool) -> None:
        """See ``OneProcess.begin``."""
        super().begin(model, batch_size, verbose)
        about, *each = share_cores(self.processes, batch_size)
        self.processes.copy_first(model.params)
        print("\n".join([about, *each] if verbose else [about]))
