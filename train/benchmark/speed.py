"""Training, evaluation, generation and memory against PyTorch on the same CPU.

python -m train.benchmark speed
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy
import pooch

from common.kernels.threads import usable_cores
from common.plotting import progress
from datasets import ptb
from train.benchmark.machine import describe_machine
from train.benchmark.processes import (
    FAST_MEMORY,
    LITTLE_MEMORY,
    SETTLE,
    SideProcess,
)
from train.benchmark.report import Curve, Report, Result
from train.benchmark.workloads import MEMORY, SWEEPS, TIMED, Sizes, TokenIds, Workload
from train.run.folder import RunFolder

BAR = "{percentage:3.0f} % |{bar}| {elapsed}, {remaining} to go: {desc}"

Sweeps = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Options:
    """Compare Time Layers, PyTorch and the book's code on the same work; about ten minutes."""

    repeats: int = 20
    """Pairs of measurements of each workload."""
    only: str = ""
    """Measure only workloads whose name contains this, such as "Rnnlm step", "memory", "cost"; by
    default all."""
    threads: int | None = None
    """Threads that each side may use; all cores if not given. PyTorch may choose fewer."""
    quick: bool = False
    """Two short measurements of the small model: shows that everything works, not how fast."""
    json: Path | None = None
    """Write all results, every sample included, to this file; results.json of the run if not
    given."""
    out: Path | None = None
    """Folder of the run; runs/benchmark_speed-NUMBER if not given."""
    data_dir: Path | None = None
    """Folder with the files of the Penn Treebank, if $TIMELAYERS_DATA does not name it."""


def read_ids(data_dir: Path | None = None, V: int = 10_000) -> tuple[TokenIds, str]:
    """Token ids and a description of them; nothing is downloaded.

    Args:
        data_dir: folder with the files of the Penn Treebank; by default $TIMELAYERS_DATA, or the
            cache if they were downloaded before.
        V: size of the vocabulary if the ids are random.

    Raises:
        FileNotFoundError: where the folder named does not hold the files.
        ValueError: where a file in it is not the one expected.
    """
    cache = Path(pooch.os_cache("time-layers"))
    cached = all((cache / file.name).is_file() for file in ptb.FILES.values())
    if data_dir or os.environ.get(ptb.DATA_VARIABLE) or cached:
        corpus = ptb.load_corpus(data_dir)
        ids = TokenIds(corpus.train, corpus.test, corpus.first_id, corpus.vocab_size)
        return ids, "ids of the Penn Treebank"
    rng = numpy.random.default_rng(1)
    train, test = (rng.integers(0, V, size, dtype="int32") for size in (200_000, 20_000))
    return TokenIds(train, test, 0, V), "random ids, since the Penn Treebank is not at hand"


def measure_in_turns(
    workload: Workload, processes: Mapping[str, SideProcess], repeats: int, tries: int
) -> Result:
    """Measure the sides in turn, ``repeats`` times; "torch_as_is" and "book" in every third turn.

    Args:
        workload: what to do.
        processes: by side.
        repeats: number of turns.
        tries: tries of each of PyTorch's settings.
    """
    result = Result(workload, {side: [] for side in workload.sides})
    for side in workload.sides:
        processes[side].call("build", workload.sizes)
        time.sleep(SETTLE)
        half = max(1, workload.count // 2)
        tries_of_side = tries if side == "torch" else 0
        chosen = processes[side].call("prepare", workload.kind, half, tries_of_side)
        result.torch_settings.update(chosen)
    for turn in range(repeats):
        for side in workload.sides:
            if side in ("time_layers", "torch") or turn % 3 == 0:
                result.samples[side].append(processes[side].cost(workload))
    return result


def measure_memory(workload: Workload, start: Callable[[str], SideProcess]) -> Result:
    """Peak memory in MB of a fresh process of each side that trains ``workload.count`` steps."""
    result = Result(workload)
    for side in workload.sides:
        with start(side) as process:
            process.call("build", workload.sizes)
            process.call("seconds", "step", workload.count)
            result.samples[side] = [process.call("peak_memory") / 1e6]
    return result


def measure_curve(letter: str, values: Sequence[int], process: SideProcess, repeats: int) -> Curve:
    """The cost of a step of Rnnlm for each of the ``values`` of one size."""
    curve = Curve(letter, list(values), [])
    for value in values:
        sizes = replace(Sizes(), **{letter: value})  # type: ignore[arg-type]
        workload = Workload(f"{letter} = {value}", "step", sizes, 4, "ms/step", 1e3)
        process.call("build", sizes)
        process.call("prepare", "step", 2, 0)
        curve.samples.append([process.cost(workload) for _ in range(repeats)])
    return curve


def _selected(options: Options) -> tuple[list[Workload], Sweeps]:
    """The workloads and the sweeps that ``--quick`` and ``--only`` leave."""
    workloads, sweeps = TIMED + MEMORY, SWEEPS
    if options.quick:
        workloads = [
            each if each.kind == "memory" else replace(each, count=each.count // 5)
            for each in workloads
            if each.sizes.model == "Rnnlm"
        ]
        sweeps = {letter: values[:2] for letter, values in sweeps.items()}
    names = [each.name for each in workloads] + [f"cost against {letter}" for letter in sweeps]
    wanted = [name for name in names if options.only.lower() in name.lower()]
    if not wanted:
        raise ValueError(f"--only {options.only}: expected part of one of {', '.join(names)}")
    return (
        [each for each in workloads if each.name in wanted],
        {letter: values for letter, values in sweeps.items() if f"cost against {letter}" in wanted},
    )


def check_sides(repeats: int, threads: int | None) -> None:
    """Refuse what cannot be measured.

    Raises:
        RuntimeError: where PyTorch is not installed.
        ValueError: for fewer than two repeats, or threads that there are not.
    """
    cores = len(usable_cores())
    if repeats < 2:
        raise ValueError(f"--repeats: expected 2 or more, got {repeats}")
    if threads is not None and not 1 <= threads <= cores:
        raise ValueError(f"--threads: expected 1 to {cores}, got {threads}")
    if find_spec("torch") is None:
        raise RuntimeError(
            'PyTorch, to compare with, is not installed; it is an extra: pip install -e ".[bench]"'
        )


def _measure(
    report: Report,
    ids: TokenIds,
    workloads: Sequence[Workload],
    sweeps: Sweeps,
    repeats: int,
    tries: int,
) -> None:
    """Fill the report: one process per side for all times, a fresh one for each peak of memory."""
    start = partial(SideProcess, ids=ids, threads=report.threads)
    timed = [each for each in workloads if each.kind != "memory"]
    sides = {"time_layers"}.union(*(each.sides for each in timed)) if timed or sweeps else set()
    with ExitStack() as stack:
        total = len(workloads) + len(sweeps)
        bar = stack.enter_context(
            progress(total=total, unit=" workloads", bar_format=BAR, leave=True)
        )
        processes = {
            side: stack.enter_context(start(side, allocator=FAST_MEMORY)) for side in sorted(sides)
        }
        if any(each.kind == "step" for each in timed):
            bar.set_description_str("fastest product")
            report.peaks = {
                side: processes[side].call("matrix_peak") for side in ("time_layers", "torch")
            }
        for workload in workloads:
            bar.set_description_str(workload.name)
            if workload.kind == "memory":
                result = measure_memory(workload, partial(start, allocator=LITTLE_MEMORY))
            else:
                result = measure_in_turns(workload, processes, repeats, tries)
            report.results.append(result)
            bar.update()
        for letter, values in sweeps.items():
            bar.set_description_str(f"cost against {letter}")
            curve = measure_curve(letter, values, processes["time_layers"], min(repeats, 5))
            report.curves.append(curve)
            bar.update()


def main(options: Options) -> None:
    """Run the command."""
    check_sides(options.repeats, options.threads)
    workloads, sweeps = _selected(options)
    ids, text = read_ids(options.data_dir)
    run = RunFolder.create("benchmark_speed", "", options)
    report = Report(describe_machine("torch"), options.threads or len(usable_cores()), text)
    repeats, tries = (2, 1) if options.quick else (options.repeats, 3)
    _measure(report, ids, workloads, sweeps, repeats, tries)
    run.write_json(options.json or run.results_file, report.as_dict())
    print(report)
    figure_file = run.path / "speed.png"
    report.draw(figure_file)
    print(f"figure saved to {figure_file}")
