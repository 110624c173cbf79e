"""Training, evaluation, generation and memory against PyTorch on the same CPU.

python -m train.benchmark speed
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from train.benchmark.corpus import read_ids
from train.benchmark.cost import measure_curve
from train.benchmark.figure import draw
from train.benchmark.machine import available_cores, describe_machine
from train.benchmark.report import Report
from train.benchmark.workers import (
    FAST_MEMORY,
    LITTLE_MEMORY,
    Worker,
    measure_in_turns,
    measure_memory,
)
from train.benchmark.works import MEMORY, SWEEPS, TIMED, Work
from train.run_folder import RunFolder

BAR = "{percentage:3.0f} % |{bar}| {elapsed}, {remaining} to go: {desc}"


@dataclass(frozen=True)
class Options:
    """Measure this project, PyTorch and the book's way at the same work; about ten minutes."""

    repeats: int = 20
    """Pairs of measurements of each work."""
    only: str = ""
    """Measure only works whose name contains this, such as "Rnnlm step", "memory", "cost"."""
    threads: int | None = None
    """Threads that each side may use; all cores if not given. PyTorch may take fewer."""
    quick: bool = False
    """Two short measurements of the small model: shows that everything works, not how fast."""
    json: Path | None = None
    """Write everything, each sample too, into this file; results.json of the run if not given."""
    out: Path | None = None
    """Folder of the run; runs/benchmark_speed-NUMBER if not named."""
    data_dir: Path | None = None
    """Folder with the files of the Penn Treebank, if $TIMELAYERS_DATA does not name it."""


@dataclass(frozen=True)
class _Plan:
    """What is measured and how thoroughly."""

    works: list[Work]
    sweeps: dict[str, tuple[int, ...]]
    repeats: int
    tries: int  # of each of PyTorch's settings

    @property
    def num_measurements(self) -> int:
        """How often the bar advances."""
        of_works = sum(
            len(work.sides) * (1 if work.kind == "memory" else 1 + self.repeats)
            for work in self.works
        )
        return of_works + sum(map(len, self.sweeps.values()))


def _plan(options: Options) -> _Plan:
    works = TIMED + MEMORY
    sweeps = SWEEPS
    if options.quick:
        works = [
            work if work.kind == "memory" else replace(work, count=work.count // 5)
            for work in works
            if work.sizes.model == "Rnnlm"
        ]
        sweeps = {letter: sizes[:2] for letter, sizes in sweeps.items()}
    names = [work.name for work in works] + [f"cost against {letter}" for letter in sweeps]
    wanted = [name for name in names if options.only.lower() in name.lower()]
    if not wanted:
        raise ValueError(f"--only {options.only}: expected part of one of {', '.join(names)}")
    return _Plan(
        [work for work in works if work.name in wanted],
        {letter: sizes for letter, sizes in sweeps.items() if f"cost against {letter}" in wanted},
        repeats=2 if options.quick else options.repeats,
        tries=1 if options.quick else 3,
    )


def _check(options: Options) -> None:
    cores = available_cores()
    if options.repeats < 2:
        raise ValueError(f"--repeats: expected 2 or more, got {options.repeats}")
    if options.threads is not None and not 1 <= options.threads <= cores:
        raise ValueError(f"--threads: expected 1 to {cores}, got {options.threads}")
    if find_spec("torch") is None:
        raise RuntimeError(
            'PyTorch, to compare with, is not installed; it is an extra: pip install -e ".[bench]"'
        )


def _measure(plan: _Plan, report: Report, ids_file: Path) -> None:
    """Fill the report: a long-lived worker for each side, a fresh process for each memory."""
    start = partial(Worker, ids_file=ids_file, threads=report.threads)
    timed = [work for work in plan.works if work.kind != "memory"]
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=plan.num_measurements, bar_format=BAR))
        if timed or plan.sweeps:
            sides = sorted({"ours"}.union(*(work.sides for work in timed)))
            workers = {
                side: stack.enter_context(start(side, allocator=FAST_MEMORY)) for side in sides
            }
        if any(work.kind == "step" for work in timed):
            bar.set_description_str("fastest product")
            report.peaks = {side: workers[side].call("matrix_peak") for side in ("ours", "torch")}
        for work in plan.works:
            bar.set_description_str(work.name)
            report.results.append(
                measure_memory(work, partial(start, allocator=LITTLE_MEMORY), bar.update)
                if work.kind == "memory"
                else measure_in_turns(work, workers, plan.repeats, plan.tries, bar.update)
            )
        for letter, sizes in plan.sweeps.items():
            bar.set_description_str(f"cost against {letter}")
            curve = measure_curve(letter, sizes, workers["ours"], min(plan.repeats, 5), bar.update)
            report.curves.append(curve)


def main(options: Options) -> None:
    """Run the command."""
    _check(options)
    plan = _plan(options)
    ids, text = read_ids(options.data_dir)
    run = RunFolder.create("benchmark_speed", options)
    report = Report(describe_machine(), options.threads or available_cores(), text)
    with tempfile.TemporaryDirectory() as folder:
        ids_file = Path(folder) / "ids.npz"
        ids.save(ids_file)
        _measure(plan, report, ids_file)
    print(report)
    run.write_json(options.json or run.results_file, report.as_dict())
    figure_file = run.path / "speed.png"
    draw(report, figure_file)
    print(f"figure saved to {figure_file}")
