"""One process per side, and the calls that let the sides take turns.

In one process the thread pools of OpenBLAS and PyTorch would disturb each other. Here one side
sleeps while the other works. The parent writes pickled calls to the child's stdin and reads
pickled answers from its stdout; the child ends when its stdin is closed, so also when the parent
is killed.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from train.benchmark.workloads import SIDES, Sizes, TokenIds, Workload, matrix_peak

__all__ = ["FAST_MEMORY", "LITTLE_MEMORY", "SideProcess"]

THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
# PyTorch allocates fresh memory for every result. By default glibc returns large blocks to the
# system and requests them again in every step. Keeping them, in huge pages, makes PyTorch's step of
# the small model 15 % faster; returning every block at once saves a quarter of the peak.
FAST_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
LITTLE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
SETTLE = 0.1  # seconds; threads of OpenBLAS and OpenMP spin for a while after their last work


class SideProcess:
    """A side in a process of its own, idle except during a call. Leave the ``with`` to end it.

    Args:
        side: one of ``SIDES``.
        ids: the text.
        threads: upper bound for every thread pool.
        allocator: environment variables of the memory allocator, for "torch" only.
    """

    def __init__(
        self, side: str, ids: TokenIds, threads: int, allocator: Mapping[str, str]
    ) -> None:
        self.side = side
        settings = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "GPU": "0"}
        if side == "torch":
            settings.update(allocator)
        # The library shows progress bars on a terminal only, so stderr goes to a file.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "train.benchmark.processes", side, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **settings},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._calls, self._answers = self._process.stdin, self._process.stdout
        self._send(ids)

    def __enter__(self) -> SideProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError):  # the answer will be missing too, and `call` reports it
            pickle.dump(message, self._calls)
            self._calls.flush()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the side's ``Server``.

        Raises:
            RuntimeError: where the process has ended; quotes the last lines of its stderr.
        """
        self._send((method, arguments))
        try:
            return pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError):  # no answer, or a part of one
            self._stderr.seek(0)
            last_lines = "".join(self._stderr.readlines()[-5:])
            message = f"the process of side {self.side!r} has ended:\n{last_lines}"
            raise RuntimeError(message) from None

    def cost(self, workload: Workload) -> float:
        """One measurement: the cost of a step or token in the workload's unit."""
        time.sleep(SETTLE)
        seconds = self.call("seconds", workload.kind, workload.count)
        return seconds / workload.count * workload.per_second


class Server:
    """The methods that the parent may call.

    Args:
        side: one of ``SIDES``.
        ids: the text.
        threads: upper bound for every thread pool.
    """

    def __init__(self, side: str, ids: TokenIds, threads: int) -> None:
        self.ids, self.threads = ids, threads
        self.module = importlib.import_module(f"train.benchmark.{SIDES[side]}")
        self.side: Any = None

    def build(self, sizes: Sizes) -> None:
        """Replace the model by one of these sizes."""
        self.side = None
        gc.collect()
        self.side = self.module.Side(sizes, self.ids.stretched(sizes.V), self.threads)

    def prepare(self, kind: str, count: int, tries: int) -> dict[str, Any]:
        """Warm up and, with ``tries``, tune the side's settings; returns those chosen."""
        getattr(self.side, kind)(count)
        return self.side.tune(kind, count, tries) if tries else {}

    def apply(self, settings: dict[str, Any]) -> None:
        """Give PyTorch's side settings that ``prepare`` has chosen in another process."""
        self.side.apply(replace(self.side.settings, **settings))

    def seconds(self, kind: str, count: int) -> float:
        """Time of ``count`` steps or tokens."""
        work = getattr(self.side, kind)
        gc.collect()
        start = time.perf_counter()
        work(count)
        return time.perf_counter() - start

    def matrix_peak(self) -> float:
        """FLOP/s of the fastest product."""
        return matrix_peak(self.module.make_product)

    def peak_memory(self) -> int:
        """Peak resident memory of this process in bytes.

        Linux reports it in /proc. ``getrusage`` would count from the size of the parent there.
        """
        status = Path("/proc/self/status")
        if status.exists():
            peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"))
            if peak is not None:
                return 1024 * int(peak[1])
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Answer calls until stdin is closed."""
    side, threads = sys.argv[1], int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):  # bounds threads of every kind; before any is started
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    calls, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not end up among the answers
    server = Server(side, pickle.load(calls), threads)
    with suppress(EOFError):
        while True:
            method, arguments = pickle.load(calls)
            pickle.dump(getattr(server, method)(*arguments), answers)
            answers.flush()


if __name__ == "__main__":
    main()
