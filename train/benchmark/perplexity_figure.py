"""Validation perplexity against time, all measured runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from train.benchmark.perplexity_records import MeasuredRun

__all__ = ["draw"]


def draw(runs: Sequence[MeasuredRun], path: Path) -> None:
    """Save one line for each run, both axes logarithmic: seconds and hours side by side.

    Raises:
        ValueError: where no run has a curve.
        OSError: where the picture cannot be written.
    """
    drawn = [run for run in runs if run.curve]
    if not drawn:
        raise ValueError("expected at least one run with a validation to draw, got none")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for run in sorted(drawn, key=lambda run: run.results["test_exact"]):
        minutes = [seconds / 60 for seconds, _, _ in run.curve]
        label = f"{run.name}, {run.device}: test {run.results['test_exact']:.1f}"
        axes.plot(minutes, [valid for *_, valid in run.curve], "o-", markersize=3, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, subs in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))):
        axis.set_major_locator(LogLocator(subs=subs, numticks=30))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("validation perplexity")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
