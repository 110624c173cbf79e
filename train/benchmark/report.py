"""Results of the speed benchmark: statistics, the printed table, the JSON content, the figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import linear_regression, median, quantiles
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from common.plotting import BLACK, BLUE, GREY, ORANGE, RED, readable, save
from train.benchmark.workloads import Workload

__all__ = ["Curve", "Report", "Result", "aligned"]

HEAD = (
    *("work", "Time Layers", "PyTorch", "ratio", "quartiles", "untuned", "book"),
    *("floor", "reached", "by PyTorch"),
)
LABELS_AND_COLORS = {
    "time_layers": ("Time Layers", BLUE),
    "torch": ("PyTorch", RED),
    "torch_as_is": ("PyTorch untuned", ORANGE),
    "book": ("the book's way", GREY),
}


@dataclass(frozen=True)
class Result:
    """The samples of a workload. The k-th samples of "time_layers" and "torch" are of one turn."""

    workload: Workload
    samples: dict[str, list[float]] = field(default_factory=dict)
    torch_settings: dict[str, Any] = field(default_factory=dict)

    def median(self, side: str) -> float | None:
        """Median of a side's samples; None if it has none."""
        return median(self.samples[side]) if self.samples.get(side) else None

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Median and quartiles of the ratios of Time Layers to PyTorch, turn by turn."""
        pairs = zip(self.samples["time_layers"], self.samples["torch"], strict=True)
        ratios = [time_layers / torch for time_layers, torch in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


@dataclass(frozen=True)
class Curve:
    """Milliseconds of a step of Rnnlm against one of its sizes: the samples at each value."""

    letter: str
    sizes: list[int]
    samples: list[list[float]]

    @property
    def costs(self) -> list[float]:
        """Median at each value."""
        return [median(samples) for samples in self.samples]

    @property
    def exponent(self) -> float:
        """k of the fit cost = c size^k, by least squares on a log-log scale.

        Raises:
            ValueError: for fewer than two points.
        """
        points = map(math.log, self.sizes), map(math.log, self.costs)
        return linear_regression(*map(list, points)).slope


@dataclass
class Report:
    """Everything that was measured.

    Args:
        machine: see ``processes.describe_machine``.
        threads: upper bound for every thread pool.
        text: where the token ids come from.
        peaks: FLOP/s of the fastest product by side.
        results: one for each workload.
        curves: one for each size that was varied.
    """

    machine: dict[str, Any]
    threads: int
    text: str
    peaks: dict[str, float] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def floor(self, result: Result) -> float | None:
        """Milliseconds that the products of a step take at the best rate measured.

        None for workloads other than training steps.
        """
        if result.workload.kind != "step" or not self.peaks:
            return None
        return 1e3 * result.workload.sizes.step_flops / max(self.peaks.values())

    def reached(self, result: Result, side: str) -> float | None:
        """The floor divided by the median of ``side``."""
        floor, cost = self.floor(result), result.median(side)
        return None if floor is None or cost is None else floor / cost

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
        workloads = []
        for result in self.results:
            ratio, *quartiles = result.ratio
            workloads.append(
                {
                    "workload": asdict(result.workload),
                    "samples": result.samples,
                    "torch_settings": result.torch_settings,
                    "median": {side: result.median(side) for side in result.samples},
                    "ratio": ratio,
                    "quartiles": quartiles,
                    "floor": self.floor(result),
                    "reached": {side: self.reached(result, side) for side in result.samples},
                }
            )
        return {
            "machine": self.machine,
            "threads": self.threads,
            "text": self.text,
            "peak_gflops": {side: peak / 1e9 for side, peak in self.peaks.items()},
            "workloads": workloads,
            "curves": [
                {**asdict(curve), "costs": curve.costs, "exponent": curve.exponent}
                for curve in self.curves
            ],
        }

    def __str__(self) -> str:
        machine = self.machine
        lines = [
            f"{machine['cpu']}, {machine['cores']} cores, {self.threads} threads; "
            f"{machine['system']}",
            f"Python {machine['python']}, NumPy {machine['numpy']} with {machine['blas']}, "
            f"PyTorch {machine['torch']}; float32; {self.text}",
        ]
        if self.peaks:
            numpy_peak, torch_peak = (self.peaks[side] / 1e9 for side in ("time_layers", "torch"))
            peaks = f"{numpy_peak:.0f} GFLOP/s by NumPy and {torch_peak:.0f} GFLOP/s by PyTorch"
            lines.append(f"fastest product: {peaks}")
        if self.results:
            rows = [HEAD, *map(self._row, self.results)]
            lines += ["", *aligned(rows, left=HEAD[:1])]
        tuned = [result for result in self.results if result.torch_settings]
        if tuned:
            lines += [
                "",
                "PyTorch has an allocator tuned for time or for memory, and the fastest settings; "
                "untuned has neither",
            ]
        for result in tuned:
            settings = ", ".join(f"{key}={value}" for key, value in result.torch_settings.items())
            lines.append(f"  {result.workload.name}: {settings}")
        if self.curves:
            powers = "   ".join(f"{curve.letter}^{curve.exponent:.2f}" for curve in self.curves)
            lines += ["", f"a step of Rnnlm grows as   {powers}"]
        return "\n".join(lines)

    def _row(self, result: Result) -> tuple[str, ...]:
        ratio, low, high = result.ratio
        reached = [self.reached(result, side) for side in ("time_layers", "torch")]
        return (
            f"{result.workload.name}, {result.workload.unit}",
            *(_number(result.median(side)) for side in ("time_layers", "torch")),
            f"{ratio:.2f}",
            f"{low:.2f}-{high:.2f}" if len(result.samples["time_layers"]) > 1 else "-",
            *(_number(result.median(side)) for side in ("torch_as_is", "book")),
            _number(self.floor(result)),
            *("-" if share is None else f"{share:.0%}" for share in reached),
        )

    def draw(self, path: Path) -> None:
        """Save a figure of the results and of the curves, whichever there are."""
        with readable():
            figure = Figure(figsize=(16, 9), layout="constrained")
            halves = bool(self.results) + bool(self.curves)
            parts = figure.subfigures(1, halves, squeeze=False)[0]
            if self.results:
                self._draw_bars(parts[0].subplots())
            if self.curves:
                parts[-1].suptitle("A step of Rnnlm against each of its sizes, ms")
                for k, curve in enumerate(self.curves, start=1):
                    _draw_curve(parts[-1].add_subplot(2, 2, k), curve)
            save(figure, path, dpi=100)

    def _draw_bars(self, axes: Axes) -> None:
        """Each side's median relative to PyTorch's, one row a workload; the floor as a tick."""
        height = 0.2
        for row, result in enumerate(self.results):
            torch = median(result.samples["torch"])
            for k, (side, samples) in enumerate(result.samples.items()):
                label, color = LABELS_AND_COLORS[side]
                place = row + (k - 1) * height
                axes.barh(place, median(samples) / torch, height, color=color, label=label)
            floor = self.floor(result)
            if floor is not None:
                span = row - 0.45, row + 0.45
                label = "the products alone"
                axes.plot([floor / torch] * 2, span, color=BLACK, label=label)
        axes.set_yticks(range(len(self.results)), [each.workload.name for each in self.results])
        axes.invert_yaxis()
        axes.set_xscale("log")
        ticks = (0.1, 0.25, 0.5, 1, 2, 4)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_title("Time and memory in parts of PyTorch's: less is better")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(
            once.values(),
            once.keys(),
            ncols=3,
            loc="upper right",
            bbox_to_anchor=(1, -0.05),
        )


def _draw_curve(axes: Axes, curve: Curve) -> None:
    _, color = LABELS_AND_COLORS["time_layers"]
    axes.loglog(curve.sizes, curve.costs, "o-", color=color)
    labels = [f"{size / 1000:g}k" if size >= 1000 else str(size) for size in curve.sizes]
    axes.set_xticks(curve.sizes, labels)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.set_title(f"{curve.letter}: as {curve.letter}^{curve.exponent:.2f}", parse_math=False)
    axes.grid()


def _number(x: float | None) -> str:
    if x is None:
        return "-"
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def aligned(rows: Sequence[tuple[str, ...]], left: Iterable[str]) -> list[str]:
    """Lines of a table whose first row is its head.

    Args:
        rows: cells, as many in each row.
        left: heads of the columns that are aligned left; the others are aligned right.
    """
    columns = [
        [cell.ljust(width) if head in left else cell.rjust(width) for cell in (head, *cells)]
        for head, *cells in zip(*rows, strict=True)
        for width in [max(map(len, (head, *cells)))]
    ]
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
