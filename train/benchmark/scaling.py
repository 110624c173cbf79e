"""Training on several processes of this machine against one, and what more machines would give.

python -m train.benchmark scaling

Every measurement is of new processes, started as ``mpiexec -n P python -m train.benchmark.scaling``
with one of the two commands at the end of this file. Those to be compared take turns, round by
round.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar, Literal

import numpy

from common.data_parallel import DataParallelTrainer
from common.kernels.threads import usable_cores
from common.np import Array
from common.optimizer import SGD
from common.plotting import progress
from common.processes import INSTALL, Processes, connected
from train.benchmark.machine import describe_machine
from train.benchmark.processes import THREAD_VARIABLES
from train.benchmark.scaling_plan import (
    ASSUMPTIONS,
    PROCESSES,
    Network,
    Plan,
    Quartiles,
    Traffic,
    draw,
)
from train.benchmark.time_layers import build_model
from train.benchmark.workloads import Sizes
from train.run.command import run_subcommands
from train.run.folder import RunFolder
from train.run.options import check_counts
from train.run.process import number_started, this_process

Kind = Literal["step", "at_end", "no_sums"]

USUAL = Sizes()  # of one process, but for model and H
QUICK = Sizes(N=4, T=5, D=8, H=8, V=100)
WINDOWS = 50  # of the text, which is read again and again
LEAST_STEPS = 2  # of each kind in a round, however long they take
SUMS = tuple(4096 * 4**k for k in range(8))  # bytes that are added up: 4 kB to 64 MB
SUM_BLOCKS, MOST_CALLS = 5, 2000  # blocks of calls that are timed, and calls in a block
SMALLEST_COST = 0.01  # of a step: a cost that is lower is noise
TEXT = "ids drawn by seed 1, the k-th as often as 1 / k (Zipf's law)"


@dataclass(frozen=True)
class Options:
    """Compare training on several processes with one process, measure what adding up gradients
    costs, and compute what networks of more machines would give; about a quarter of an hour. Let
    nothing else run. Only the figures that are called measured are."""

    models: tuple[Literal["Rnnlm", "BetterRnnlm"], ...] = ("Rnnlm", "BetterRnnlm")
    """Models to train."""
    hidden_sizes: tuple[int, ...] = (100, 650, 1500)
    """Widths H of their recurrent layers and of their word vectors."""
    processes: int = 2
    """Number of processes P, of one thread each."""
    repeats: int = 5
    """Rounds; each measures everything once, in new processes."""
    steps: int = 20
    """Training steps of each kind in a round, at most."""
    seconds: float = 3.0
    """Time for the steps of each kind in a round: of a large model there are fewer, two at
    least."""
    latency_us: tuple[float, float] = (50.0, 5.0)
    """Latency of a message that is assumed for the networks of 10 and of 100 Gbit/s, in
    microseconds."""
    quick: bool = False
    """One round of two steps of tiny models: shows that everything works, not how fast."""
    out: Path | None = None
    """Folder of the run; runs/benchmark_scaling-NUMBER if not given."""


# --- what is measured, and in which processes


@dataclass(frozen=True)
class Setup:
    """How many processes train on how many streams.

    Args:
        processes: how many.
        threads: of each.
        N: streams of all.
        kinds: of steps: "step" as training does it; "at_end" begins the sums of the gradients
            after the backward pass; "no_sums" leaves them out, so that nothing useful is learned.
    """

    processes: int
    threads: int
    N: int
    kinds: tuple[Kind, ...] = ("step",)


def setups(P: int, N: int) -> dict[str, Setup]:
    """The rivals of a round, by their names in the JSON file.

    "each" is weak scaling: every process has N streams. "shared" is strong scaling: all processes,
    or in "threads" all threads, have N together.
    """
    return {
        "one": Setup(1, 1, N),
        "threads": Setup(1, P, N),
        "shared": Setup(P, 1, N),
        "each": Setup(P, 1, P * N, ("step", "at_end", "no_sums")),
    }


@dataclass
class Case:
    """The times of one model and size.

    Args:
        sizes: of one process.
        rounds: seconds of each step, by setup and kind; a step of several processes takes as long
            as that of the slowest. The k-th steps of all kinds followed each other.
        traffic: of one process among P with N streams each; known after the first round.
    """

    sizes: Sizes
    rounds: list[dict[str, dict[str, list[float]]]] = field(default_factory=list)
    traffic: Traffic | None = None

    def seconds(self, setup: str, kind: Kind = "step") -> float:
        """Time of a step: the median of the rounds' medians."""
        return median(median(times[setup][kind]) for times in self.rounds)

    def gain(self, setup: str) -> Quartiles:
        """Time of a step of "one" divided by that of ``setup``, of all rounds."""
        return _quartiles(
            [median(times["one"]["step"]) / median(times[setup]["step"]) for times in self.rounds]
        )

    def cost(self, kind: Kind) -> Quartiles:
        """Seconds that a step of "each" takes longer than one without sums, of all rounds."""
        costs = []
        for times in self.rounds:
            pairs = zip(times["each"][kind], times["each"]["no_sums"], strict=True)
            costs.append(median(step - without for step, without in pairs))
        return _quartiles(costs)

    @property
    def hidden(self) -> float | None:
        """The share of the cost of sums that their overlap hides; below 0 where it costs more.

        None where the cost at the end is noise: within the quartiles' distance or a hundredth of a
        step.
        """
        low, at_end, high = self.cost("at_end")
        if at_end <= max(high - low, SMALLEST_COST * self.seconds("each", "no_sums")):
            return None
        return (at_end - self.cost("step")[1]) / at_end

    def plan(self) -> Plan:
        """Weak scaling on networks; where no hidden share is known, nothing hides."""
        assert self.traffic is not None
        hidden = min(max(self.hidden or 0.0, 0.0), 1.0)
        return Plan(self.sizes, self.seconds("one"), self.traffic, hidden)

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file, in seconds."""
        kinds: tuple[Kind, ...] = ("step", "at_end", "no_sums")
        return {
            "sizes": asdict(self.sizes),
            "rounds": self.rounds,
            "traffic": None if self.traffic is None else asdict(self.traffic),
            "median": {
                **{name: self.seconds(name) for name in ("one", "threads", "shared")},
                "each": {kind: self.seconds("each", kind) for kind in kinds},
            },
            "weak_efficiency": self.gain("each"),
            "strong_speedup": self.gain("shared"),
            "threads_speedup": self.gain("threads"),
            "cost_of_sums": {kind: self.cost(kind) for kind in ("at_end", "step")},
            "hidden": self.hidden,
        }


def _quartiles(values: Sequence[float]) -> Quartiles:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


@dataclass
class Report:
    """Everything that was measured, and what is computed from it.

    Args:
        machine: CPU, cores, operating system and versions.
        processes: P.
        networks: what to compute the plans for.
        cases: one for each model and size.
        sums: seconds of adding up so many bytes over P processes: a list for each round.
    """

    machine: dict[str, Any]
    processes: int
    networks: list[Network]
    cases: list[Case]
    sums: dict[int, list[list[float]]]

    def sum_seconds(self) -> dict[int, Quartiles]:
        """Seconds of each size in ``sums``, of the medians of all rounds."""
        return {n: _quartiles([*map(median, rounds)]) for n, rounds in self.sums.items()}

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file, in seconds and bytes."""
        return {
            "machine": self.machine,
            "processes": self.processes,
            "text": TEXT,
            "cases": [case.as_dict() for case in self.cases],
            "sums": [
                {"bytes": n, "rounds": self.sums[n], "quartiles": seconds}
                for n, seconds in self.sum_seconds().items()
            ],
            "computed": {
                "how": ASSUMPTIONS,
                "processes": PROCESSES,
                "curves": [
                    {
                        "model": plan.sizes.model,
                        "H": plan.sizes.H,
                        "hidden": plan.hidden,
                        "network": asdict(network),
                        "seconds": [plan.seconds(P, network) for P in PROCESSES],
                        "efficiency": [plan.efficiency(P, network) for P in PROCESSES],
                    }
                    for plan in (case.plan() for case in self.cases)
                    for network in self.networks
                ],
            },
        }

    def __str__(self) -> str:
        P, sizes, machine = self.processes, self.cases[0].sizes, self.machine
        streams = f"{sizes.N} streams"
        head = (
            *("model", "H", f"one process, {streams}"),
            *(f"{P} processes, {streams} each", "without sums", "weak efficiency"),
            *(f"{P} processes share {streams}", "speedup", f"{P} threads share them", "speedup"),
            *("sums, MB", "cost at the end", "cost overlapped", "hidden"),
        )
        head_of_plans = ("model", "H", "hidden", *(f"P = {number}" for number in PROCESSES))
        speeds = " / ".join(map(str, self.networks))
        return "\n".join(
            [
                f"{machine['cpu']}, {machine['cores']} cores; {machine['system']}",
                f"Python {machine['python']}, NumPy {machine['numpy']} with {machine['blas']}; "
                "float32",
                f"measured: milliseconds of a training step, T = {sizes.T}, V = {sizes.V:,}, one "
                f"thread a process; {TEXT}",
                f"median and quartiles of all rounds, {len(self.cases[0].rounds)}; costs against "
                "steps that leave the sums out",
                "",
                *_markdown(head, [self._measured_row(case) for case in self.cases]),
                "",
                f"measured: adding up over {P} processes (MPI's Iallreduce, waited for at once)",
                "",
                *_markdown(
                    ("KiB", "ms", "GB/s"),
                    [
                        (f"{n / 1024:,.0f}", f"{1e3 * seconds:.3g}", f"{n / seconds / 1e9:.2f}")
                        for n, (_, seconds, _) in self.sum_seconds().items()
                    ],
                ),
                "",
                ASSUMPTIONS,
                f"weak efficiency, {speeds}:",
                "",
                *_markdown(head_of_plans, [self._computed_row(case) for case in self.cases]),
            ]
        )

    def _measured_row(self, case: Case) -> tuple[str, ...]:
        assert case.traffic is not None
        traffic = sum(case.traffic.sums) + case.traffic.rows
        return (
            *(case.sizes.model, str(case.sizes.H)),
            *(_milliseconds(case.seconds("one")), _milliseconds(case.seconds("each"))),
            *(_milliseconds(case.seconds("each", "no_sums")), _spread(case.gain("each"))),
            *(_milliseconds(case.seconds("shared")), _spread(case.gain("shared"))),
            *(_milliseconds(case.seconds("threads")), _spread(case.gain("threads"))),
            f"{traffic / 1e6:.3g}",
            *(_milliseconds(case.cost("at_end")[1]), _milliseconds(case.cost("step")[1])),
            "cost is noise" if case.hidden is None else _percent(case.hidden),
        )

    def _computed_row(self, case: Case) -> tuple[str, ...]:
        plan = case.plan()
        hidden = "not known, so 0 %" if case.hidden is None else _percent(plan.hidden)
        return (
            *(plan.sizes.model, str(plan.sizes.H), hidden),
            *(
                " / ".join(f"{plan.efficiency(P, network):.2f}" for network in self.networks)
                for P in PROCESSES
            ),
        )


def _milliseconds(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:,.0f}" if abs(ms) >= 100 else f"{ms:.1f}" if abs(ms) >= 10 else f"{ms:.2f}"


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _spread(quartiles: Quartiles) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


# --- starting the processes


def launcher() -> str:
    """The path of mpiexec: beside this Python, else where the shell would find it.

    Raises:
        RuntimeError: where it or mpi4py is missing.
    """
    found = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
    if found is None or find_spec("mpi4py") is None:
        missing = "mpiexec" if found is None else "mpi4py"
        raise RuntimeError(f"{missing}, to start several processes, is missing; {INSTALL}")
    return found


def measured(processes: int, threads: int, *command: object) -> dict[str, Any]:
    """What a command of this module measures in ``processes`` new processes.

    Args:
        processes: how many.
        threads: of each.
        command: "steps" or "sums" with its options.

    Raises:
        RuntimeError: where the processes have failed; quotes the last lines of their stderr.
    """
    start = [launcher(), "-n", str(processes)] if processes > 1 else []
    done = subprocess.run(
        [*start, sys.executable, "-m", "train.benchmark.scaling", *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "GPU": "0"},
    )
    if done.returncode:
        last_lines = "\n".join(done.stderr.splitlines()[-5:])
        what = f"measuring {command[0]} on {processes} processes"
        raise RuntimeError(f"{what} ended with exit code {done.returncode}:\n{last_lines}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(report: Report, options: Options) -> None:
    """Fill the report, round by round; odd rounds go through the setups the other way round."""
    P = report.processes
    limits, usual = ("--seconds", options.seconds), asdict(Sizes())
    rivals = list(setups(P, report.cases[0].sizes.N).items())
    total = options.repeats * (len(report.cases) * len(rivals) + 1)
    with progress(total=total, unit=" measurements") as bar:
        for number in range(options.repeats):
            for case in report.cases:
                bar.set_description_str(f"{case.sizes.model}, H = {case.sizes.H}")
                seconds = {}
                for name, setup in rivals if number % 2 == 0 else reversed(rivals):
                    sizes = asdict(replace(case.sizes, N=setup.N)).items()
                    chosen = [(key, value) for key, value in sizes if value != usual[key]]
                    flags = [part for key, value in chosen for part in (f"--sizes.{key}", value)]
                    command = ["steps", *flags, "--steps", options.steps, *limits]
                    command += ["--kinds", *setup.kinds]
                    answer = measured(setup.processes, setup.threads, *command)
                    seconds[name] = answer["seconds"]
                    if answer["traffic"] is not None:
                        sums = tuple(answer["traffic"].pop("sums"))
                        case.traffic = Traffic(sums, **answer["traffic"])
                    bar.update()
                case.rounds.append(seconds)
            bar.set_description_str("sums")
            answer = measured(P, 1, "sums", *limits, "--sizes", *report.sums)
            for rounds, samples in zip(report.sums.values(), answer["seconds"], strict=True):
                rounds.append(samples)
            bar.update()


def _check(options: Options) -> None:
    check_counts(options, "repeats", "steps")
    if not options.seconds > 0:
        raise ValueError(f"--seconds: expected more than 0, got {options.seconds}")
    for name, values in (("models", options.models), ("hidden-sizes", options.hidden_sizes)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"--{name}: expected one or more, each once, got {values}")
    for value in options.hidden_sizes:
        if value < 1:
            raise ValueError(f"--hidden-sizes: expected 1 or more, got {value}")
    if not min(options.latency_us) >= 0:
        raise ValueError(f"--latency-us: expected 0 or more, got {options.latency_us}")
    most = QUICK.N if options.quick else min(USUAL.N, len(usable_cores()))
    if not 2 <= options.processes <= most:
        raise ValueError(
            f"--processes: expected 2 to {most}, a core and a stream for each; "
            f"got {options.processes}"
        )
    launcher()


def main(options: Options) -> None:
    """Run the command."""
    _check(options)
    sizes, hidden_sizes, sums, limits = USUAL, options.hidden_sizes, SUMS, options
    if options.quick:
        sizes, hidden_sizes, sums = QUICK, (QUICK.H,), SUMS[:3]
        limits = replace(options, repeats=1, steps=LEAST_STEPS, seconds=0.1)
    cases = [
        Case(replace(sizes, model=model, D=H, H=H, dropout=0.5 if model == "BetterRnnlm" else 0.0))
        for model in options.models
        for H in hidden_sizes
    ]
    networks = [
        Network(gbit, latency / 1e6)
        for gbit, latency in zip((10, 100), options.latency_us, strict=True)
    ]
    run = RunFolder.create("benchmark_scaling", "", options)
    report = Report(describe_machine(), options.processes, networks, cases, {n: [] for n in sums})
    measure(report, limits)
    run.write_json(run.results_file, report.as_dict())
    print(report)
    figure_file = run.path / "scaling.png"
    draw(
        figure_file,
        [case.plan() for case in cases],
        [case.gain("each") for case in cases],
        report.sum_seconds(),
        networks,
        options.processes,
    )
    print(f"figure saved to {figure_file}")


# --- in the processes


@dataclass(frozen=True)
class Steps:
    """Time training steps, forward, backward, clipping and SGD, on as many processes as mpiexec has
    started; prints JSON."""

    on_processes: ClassVar[bool] = True

    sizes: Sizes
    """N counts the streams of all processes."""
    kinds: tuple[Kind, ...] = ("step",)
    """What to time; the kinds take turns step by step."""
    steps: int = 20
    """Steps of each kind, at most."""
    seconds: float = 3.0
    """Time for the steps of each kind."""


@dataclass(frozen=True)
class Sums:
    """Time how arrays are added up over the processes that mpiexec has started, as a trainer does
    it; prints JSON."""

    on_processes: ClassVar[bool] = True

    sizes: tuple[int, ...] = SUMS
    """Bytes of each array."""
    seconds: float = 3.0
    """Time for all sizes."""


class WithoutSums(Processes):
    """Processes that tell each other nothing: what the gradients' sums cost is measured by it.

    Each goes on with its own gradients, so the weights drift apart and nothing useful is learned.

    Args:
        processes: the connected ones.

    Attributes:
        summed: bytes of each array that would have been added up.
        collected: bytes of what the others would have got from this process.
    """

    def __init__(self, processes: Processes) -> None:
        vars(self).update(vars(processes))
        self.summed: list[int] = []
        self.collected = 0

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """Leave ``array`` as it is."""
        self.summed.append(array.nbytes)
        return lambda: None

    def rows_of_all(self, rows: Array, numbers: Sequence[int]) -> Array:
        """As many rows as all processes have, but this one's, over and over."""
        self.collected += rows.nbytes
        return numpy.resize(rows, (sum(numbers), *rows.shape[1:]))


def zipf_ids(V: int, length: int) -> numpy.ndarray:
    """Random ids (length,) in 0 .. V - 1, the k-th as often as 1 / k; the same each time."""
    up_to = (1 / numpy.arange(1, V + 1)).cumsum()
    drawn = numpy.random.default_rng(1).random(length) * up_to[-1]
    return up_to.searchsorted(drawn, side="right").astype("int32")


def time_steps(options: Steps) -> None:
    """Print the seconds of each step by kind, and what a process sends."""
    process, sizes = this_process(), options.sizes
    model = build_model(sizes)
    process.begin(model, sizes.N, verbose=False)
    trainer = process.trainer(model, SGD(1.0))
    together = trainer.processes if isinstance(trainer, DataParallelTrainer) else None
    ids = zipf_ids(sizes.V, WINDOWS * sizes.N * sizes.T + 1)
    iterations = trainer.iterations(
        *(ids[:-1], ids[1:], sys.maxsize, sizes.N, sizes.T), max_grad=0.25, eval_interval=None
    )

    def step(kind: Kind) -> float:
        if isinstance(trainer, DataParallelTrainer) and together is not None:
            trainer.processes = WithoutSums(together) if kind == "no_sums" else together
            trainer.overlap = kind == "step"
            together.comm.Barrier()
        start = time.perf_counter()
        next(iterations)
        seconds = time.perf_counter() - start
        return seconds if together is None else together.highest(seconds)[0]

    _, usual = step("step"), step("step")  # the first one makes the buffers
    number = max(LEAST_STEPS, min(options.steps, int(options.seconds / usual)))
    samples: dict[str, list[float]] = {kind: [] for kind in options.kinds}
    gc.collect()
    for k in range(number):
        first = k % len(options.kinds)
        for kind in (*options.kinds[first:], *options.kinds[:first]):
            samples[kind].append(step(kind))
    traffic = None
    if "no_sums" in options.kinds and isinstance(trainer, DataParallelTrainer):
        step("no_sums")
        silent = trainer.processes
        assert isinstance(silent, WithoutSums)
        table = sum(grad.nbytes for grad in model.grads) - sum(silent.summed)
        traffic = asdict(Traffic(tuple(silent.summed), silent.collected, max(0, table)))
    print(json.dumps({"seconds": samples, "traffic": traffic}))


def time_sums(options: Sums) -> None:
    """Print the seconds of adding up, of each size as many samples as there are blocks of calls."""
    processes = connected(number_started())

    def block(array: Array, calls: int) -> float:
        processes.comm.Barrier()
        start = time.perf_counter()
        for _ in range(calls):
            processes.begin_sum(array)()
        return processes.highest((time.perf_counter() - start) / calls)[0]

    samples = []
    for size in options.sizes:
        array = numpy.zeros(size // 4, dtype=numpy.float32)
        _, usual = block(array, 1), block(array, 1)
        share = options.seconds / len(options.sizes) / SUM_BLOCKS
        calls = max(1, min(MOST_CALLS, int(share / usual)))
        samples.append([block(array, calls) for _ in range(SUM_BLOCKS)])
    print(json.dumps({"seconds": samples}))


if __name__ == "__main__":
    run_subcommands({"steps": (time_steps, Steps), "sums": (time_sums, Sums)})
