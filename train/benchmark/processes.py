"""The parent's end: start the workers, ask them in turns, collect the samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import Any

from train.benchmark.works import Sizes, Work

__all__ = [
    "FAST_MEMORY",
    "LITTLE_MEMORY",
    "Result",
    "Worker",
    "measure_in_turns",
    "measure_memory",
]

THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
# PyTorch takes fresh memory for every result. glibc gives large blocks back to the system and takes
# them again at every step: told to keep them, and to ask for huge pages, it makes PyTorch's step of
# the small model 15 % faster. Told to give back all blocks at once it saves a quarter of the peak.
FAST_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
LITTLE_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
SETTLE = 0.1  # seconds; the threads of OpenBLAS and OpenMP spin for a while after their last work


class Worker:
    """One side in a process of its own, asleep but for the time of a call.

    Args:
        side: "ours", "torch", "torch_as_is" or "book".
        ids_file: what ``Ids.save`` wrote.
        threads: how many every pool may have.
        allocator: environment variables for "torch".
    """

    def __init__(
        self, side: str, ids_file: Path, threads: int, allocator: Mapping[str, str]
    ) -> None:
        self.side = side
        settings = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"GPU": "0"}
        if side == "torch":
            settings.update(allocator)
        # Not the terminal: progress bars of the library see that and keep quiet.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "train.benchmark.worker", side, str(ids_file), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **settings},
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def call(self, name: str, **arguments: Any) -> Any:
        """What a method of the worker's server answers.

        Raises:
            RuntimeError: where the worker has ended; with the last lines it wrote.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([name, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._errors.seek(0)
            last = "".join(self._errors.readlines()[-5:])
            raise RuntimeError(f"the worker of side {self.side!r} has ended:\n{last}")
        return json.loads(answer)

    def build(self, sizes: Sizes) -> None:
        """Make a model of these sizes."""
        self.call("build", sizes=asdict(sizes))

    def cost(self, work: Work) -> float:
        """One measurement: what one step or token costs, in the unit of the work."""
        time.sleep(SETTLE)
        seconds = self.call("seconds", kind=work.kind, count=work.count)
        return seconds / work.count * work.per_second


@dataclass(frozen=True)
class Result:
    """The samples of a work, pair by pair: the k-th of each side were taken in one turn."""

    work: Work
    samples: dict[str, list[float]] = field(default_factory=dict)
    torch_settings: dict[str, Any] = field(default_factory=dict)

    def median(self, side: str) -> float | None:
        """Median of a side's samples; None where it has none."""
        return median(self.samples[side]) if self.samples.get(side) else None

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Median and both quartiles of the pairs' ratios, ours to PyTorch's."""
        pairs = zip(self.samples["ours"], self.samples["torch"], strict=True)
        ratios = [ours / torch for ours, torch in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


def measure_in_turns(
    work: Work, workers: dict[str, Worker], repeats: int, tries: int, advance: Callable[[], Any]
) -> Result:
    """Each side of the work in turn, ``repeats`` times; only ours and PyTorch at its best always.

    Args:
        work: what to do.
        workers: by side.
        repeats: how many pairs.
        tries: how often each of PyTorch's settings is tried.
        advance: called after each measurement.
    """
    result = Result(work, {side: [] for side in work.sides})
    for side in work.sides:
        workers[side].build(work.sizes)
        time.sleep(SETTLE)
        count = max(1, work.count // 2)
        of_side = tries if side == "torch" else 0
        chosen = workers[side].call("prepare", kind=work.kind, count=count, tries=of_side)
        result.torch_settings.update(chosen)
        advance()
    for k in range(repeats):
        for side in work.sides:
            if side in ("ours", "torch") or k % 3 == 0:
                result.samples[side].append(workers[side].cost(work))
            advance()
    return result


def measure_memory(
    work: Work, start: Callable[[str], Worker], advance: Callable[[], Any]
) -> Result:
    """Peak memory in MB of a process that trains ``work.count`` steps and ends."""
    result = Result(work)
    for side in work.sides:
        with start(side) as worker:
            worker.build(work.sizes)
            worker.call("seconds", kind="step", count=work.count)
            result.samples[side] = [worker.call("peak_memory") / 1e6]
        advance()
    return result
