"""The measurements as one picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from train.benchmark.cost import Curve
from train.benchmark.report import Report

__all__ = ["draw"]

COLORS = {
    "ours": "tab:blue",
    "torch": "tab:orange",
    "torch_as_is": "navajowhite",
    "book": "tab:gray",
}
LABELS = {
    "ours": "Time Layers",
    "torch": "PyTorch",
    "torch_as_is": "PyTorch untuned",
    "book": "the book's way",
}


def _bars(axes: Axes, report: Report) -> None:
    """Each work of each side relative to PyTorch, the first on top; the floor as a tick."""
    height = 0.2
    labelled: set[str] = set()
    for row, result in enumerate(report.results):
        torch = result.median("torch")
        assert torch is not None
        for k, side in enumerate(result.samples):
            median = result.median(side)
            assert median is not None
            axes.barh(
                row + (k - 1) * height,
                median / torch,
                height,
                color=COLORS[side],
                label=None if side in labelled else LABELS[side],
            )
            labelled.add(side)
        floor = report.floor(result)
        if floor is not None:
            axes.plot(
                [floor / torch] * 2,
                [row - 0.45, row + 0.45],
                color="black",
                linewidth=1.5,
                label=None if "floor" in labelled else "floor: the products at their peak",
            )
            labelled.add("floor")
    axes.set_yticks(range(len(report.results)), [result.work.name for result in report.results])
    axes.invert_yaxis()
    axes.set_xscale("log")
    ticks = (0.1, 0.25, 0.5, 1, 2, 4)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("relative to PyTorch: less is better")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.1))


def _curve(axes: Axes, curve: Curve) -> None:
    axes.loglog(curve.sizes, curve.costs, "o-", markersize=4, color=COLORS["ours"])
    labels = [f"{size / 1000:g}k" if size >= 1000 else str(size) for size in curve.sizes]
    axes.set_xticks(curve.sizes, labels, fontsize="small")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.set_title(f"{curve.letter}, as {curve.letter}^{curve.exponent:.2f}", fontsize="medium")
    axes.set_ylabel("ms/step", fontsize="small")
    axes.grid(alpha=0.3)


def draw(report: Report, path: Path) -> None:
    """Save the bars and the curves of cost, those that were measured."""
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    halves = figure.subfigures(1, 2, squeeze=False)[0] if report.results and report.curves else None
    if report.results:
        _bars((figure if halves is None else halves[0]).subplots(), report)
    if report.curves:
        place = figure if halves is None else halves[1]
        place.suptitle("Cost of a step of Rnnlm")
        grid = place.subplots(2, 2, squeeze=False).flat
        for axes in list(grid)[len(report.curves) :]:
            axes.remove()
        for axes, curve in zip(place.axes, report.curves, strict=True):
            _curve(axes, curve)
    figure.savefig(path, dpi=100)
