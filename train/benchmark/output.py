"""What an output layer costs at a large vocabulary, dense and adaptive, here and in PyTorch.

python -m train.benchmark output
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy
from matplotlib.figure import Figure

from common.kernels.threads import usable_cores
from common.plotting import BLUE, ORANGE, progress, save
from common.time_layers.clusters import default_cutoffs
from train.benchmark.machine import describe_machine
from train.benchmark.processes import FAST_MEMORY, LITTLE_MEMORY, SETTLE, SideProcess
from train.benchmark.report import aligned
from train.benchmark.speed import BAR, check_sides
from train.benchmark.workloads import Sizes, TokenIds, Workload
from train.run.folder import RunFolder

VOCABULARIES = (10_000, 33_278, 267_735)  # of the Penn Treebank, WikiText-2 and WikiText-103
# How frequent the word of rank r is, up to a factor: (r + SHIFT) ** -POWER (Mandelbrot 1953). Of
# 267,735 words the 2,000 most frequent have 81 % of the tokens, the 10,000 most frequent 89 %.
SHIFT, POWER = 2.7, 1.2
TOKENS = 200_000
SIDES = ("time_layers", "torch")
LABELS = {"time_layers": "Time Layers", "torch": "PyTorch"}
KINDS = ("dense", "adaptive", "adaptive, tied")
MOST_OF_DENSE, MOST_OF_TORCH = 2.0, 0.6  # what is aimed at


@dataclass(frozen=True)
class Options:
    """Cost and peak memory of a training step of an LSTM language model (H 512, N 20, T 35) with
    10,000, 33,278 and 267,735 words: with a dense output layer, with an adaptive softmax, and with
    one that is tied to an adaptive embedding; about fifteen minutes."""

    repeats: int = 7
    """Measurements of each side, in turns."""
    only: str = ""
    """Measure only what has this in its name, such as "dense" or "267,735"."""
    threads: int | None = None
    """Threads that each side may use; all cores if not given. PyTorch may choose fewer."""
    quick: bool = False
    """Two short measurements of tiny models: shows that everything works, not how fast."""
    json: Path | None = None
    """Write all results, every sample included, to this file; results.json of the run if not
    given."""
    out: Path | None = None
    """Folder of the run; runs/benchmark_output-NUMBER if not given."""


def frequencies(V: int) -> numpy.ndarray:
    """The share of each of V words in a text (V,), the most frequent first."""
    shares = (numpy.arange(1, V + 1) + SHIFT) ** -POWER
    return shares / shares.sum()


def drawn_ids(V: int) -> TokenIds:
    """A text of independent words; ids are ranks, as PyTorch's adaptive softmax wants them."""
    places = numpy.random.default_rng(1).random(TOKENS)
    ids = numpy.searchsorted(numpy.cumsum(frequencies(V)), places).clip(max=V - 1).astype("int32")
    return TokenIds(ids, ids[:1000], 0, V)


def workloads(vocabularies: Sequence[int], base: Sizes) -> list[Workload]:
    """A training step for each number of words and each kind of output layer."""
    found = []
    for V in vocabularies:
        cutoffs = default_cutoffs(TOKENS * frequencies(V))
        for kind in KINDS:
            sizes = replace(base, V=V)
            if kind != "dense":
                sizes = replace(sizes, cutoffs=cutoffs, tied=kind != "adaptive")
            count = 1 if kind == "dense" and V > 100_000 else 3
            found.append(Workload(f"{kind}, V {V:,}", "step", sizes, count, "ms/step", 1e3))
    return found


@dataclass
class Measured:
    """Samples of one kind of output layer; the k-th ones were taken in one turn.

    Args:
        workload: what was done.
        samples: milliseconds of a step of both sides, and of ``reference``, the first workload by
            Time Layers in a process of its own.
        memory: peak memory in MB of a fresh process of each side.
        torch_settings: what PyTorch was fastest with.
    """

    workload: Workload
    samples: dict[str, list[float]]
    memory: dict[str, float] = field(default_factory=dict)
    torch_settings: dict[str, Any] = field(default_factory=dict)

    def ratio(self, to: str) -> tuple[float, float, float]:
        """Median and quartiles of the ratios of Time Layers to ``to``, turn by turn."""
        pairs = zip(self.samples["time_layers"], self.samples[to], strict=True)
        low, middle, high = quantiles((a / b for a, b in pairs), n=4, method="inclusive")
        return middle, low, high

    def as_dict(self) -> dict[str, Any]:
        """What the JSON file has of it."""
        return {
            **asdict(self),
            "median": {side: median(samples) for side, samples in self.samples.items()},
            "to_torch": self.ratio("torch"),
            "to_reference": self.ratio("reference"),
        }


def measure(
    workload: Workload,
    reference: tuple[SideProcess, Workload],
    start: Callable[..., SideProcess],
    repeats: int,
    tries: int,
) -> Measured:
    """Time of both sides in turns with the reference, then the memory of fresh processes."""
    ids = drawn_ids(workload.sizes.V)
    measured = Measured(workload, {side: [] for side in ("reference", *SIDES)})
    with ExitStack() as stack:
        turns = {"reference": reference}
        for side in SIDES:
            process = stack.enter_context(start(side, ids, allocator=FAST_MEMORY))
            process.call("build", workload.sizes)
            tries_of_side = tries if side == "torch" else 0
            chosen = process.call("prepare", "step", workload.count, tries_of_side)
            measured.torch_settings.update(chosen)
            time.sleep(SETTLE)
            turns[side] = process, workload
        for _ in range(repeats):
            for side, (process, work) in turns.items():
                measured.samples[side].append(process.cost(work))
    for side in SIDES:
        with start(side, ids, allocator=LITTLE_MEMORY) as process:
            process.call("build", workload.sizes)
            if side == "torch":
                process.call("apply", measured.torch_settings)
            process.call("seconds", "step", max(2, workload.count))
            measured.memory[side] = process.call("peak_memory") / 1e6
    return measured


def table(all_measured: Sequence[Measured], reference: Workload) -> str:
    """What a person reads."""
    head = ("output layer", *LABELS.values(), "ratio", "quartiles", f"to {reference.name}")
    rows = [(*head, "memory", "PyTorch's")]
    largest = max(each.workload.sizes.V for each in all_measured)
    for each in all_measured:
        ratio, low, high = each.ratio("torch")
        rows.append(
            (
                each.workload.name,
                *(f"{median(each.samples[side]):,.0f} ms" for side in SIDES),
                f"{ratio:.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{each.ratio('reference')[0]:.2f}",
                *(f"{each.memory[side]:,.0f} MB" for side in SIDES),
            )
        )
    lines = aligned(rows, left=head[:1])
    for each in all_measured:
        if each.workload.sizes.cutoffs and largest == each.workload.sizes.V:
            lines.append(
                f"{each.workload.name}: {each.ratio('reference')[0]:.2f} of {reference.name} "
                f"({MOST_OF_DENSE:g} at most), {each.ratio('torch')[0]:.2f} of PyTorch "
                f"({MOST_OF_TORCH:g} at most)"
            )
        settings = ", ".join(f"{key}={value}" for key, value in each.torch_settings.items())
        lines.append(f"  PyTorch, {each.workload.name}: {settings}")
    return "\n".join(lines)


def draw(all_measured: Sequence[Measured], path: Path) -> None:
    """Save a figure: milliseconds and megabytes of each, both sides beside each other."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    names = [each.workload.name for each in all_measured]
    values = {
        "milliseconds a step": [{s: median(m.samples[s]) for s in SIDES} for m in all_measured],
        "peak memory, MB": [each.memory for each in all_measured],
    }
    halves = figure.subplots(1, 2, sharey=True)
    for axes, (label, of_all) in zip(halves, values.items(), strict=True):
        for k, side in enumerate(SIDES):
            places = [row + 0.4 * (k - 0.5) for row in range(len(names))]
            color = (BLUE, ORANGE)[k]
            axes.barh(places, [one[side] for one in of_all], 0.4, color=color, label=LABELS[side])
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.legend(fontsize="small")
    save(figure, path, dpi=100)


def selected(options: Options) -> list[Workload]:
    """The workloads that ``--quick`` and ``--only`` leave, after the reference.

    Raises:
        ValueError: where none is left.
    """
    if options.quick:
        found = workloads((300, 1000), Sizes(N=4, T=8, D=32, H=32))
    else:
        found = workloads(VOCABULARIES, Sizes(D=512, H=512))
    chosen = [each for each in found if options.only.lower() in each.name.lower()]
    if not chosen:
        names = "; ".join(each.name for each in found)
        raise ValueError(f"--only {options.only}: expected part of one of {names}")
    return [found[0], *chosen]


def main(options: Options) -> None:
    """Run the command."""
    check_sides(options.repeats, options.threads)
    reference, *chosen = selected(options)
    run = RunFolder.create("benchmark_output", "", options)
    threads = options.threads or len(usable_cores())
    repeats, tries = (2, 1) if options.quick else (options.repeats, 2)
    start = partial(SideProcess, threads=threads)
    all_measured = []
    with (
        start("time_layers", drawn_ids(reference.sizes.V), allocator={}) as process,
        progress(total=len(chosen), unit=" workloads", bar_format=BAR, leave=True) as bar,
    ):
        process.call("build", reference.sizes)
        process.call("prepare", "step", reference.count, 0)
        for workload in chosen:
            bar.set_description_str(workload.name)
            all_measured.append(measure(workload, (process, reference), start, repeats, tries))
            bar.update()
    machine = describe_machine("torch")
    content = {
        "machine": machine,
        "threads": threads,
        "text": f"{TOKENS} ids drawn with probability (rank + {SHIFT}) ** -{POWER}",
        "reference": asdict(reference),
        "workloads": [each.as_dict() for each in all_measured],
    }
    run.write_json(options.json or run.results_file, content)
    print(f"{machine['cpu']}, {threads} threads, PyTorch {machine['torch']}; {content['text']}")
    print(table(all_measured, reference))
    figure_file = run.path / "output.png"
    draw(all_measured, figure_file)
    print(f"figure saved to {figure_file}")
