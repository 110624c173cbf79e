"""Results of ``train.effective_context``: tables, CSV, the figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from common.perplexity.effective_context import ONE_PERCENT, first_below
from common.plotting import BLACK, PALETTE, name_points
from train.benchmark.report import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CHANGES", "Look", "as_csv", "draw", "gradient_table", "increase_table"]

SHOWN = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # steps back of which the table has the norm
CHANGES = {"replace": "replaced by others", "shuffle": "shuffled", "drop": "dropped"}
LEAST_SHARE, LEAST_INCREASE = 1e-6, 3e-3  # what is less is not drawn, or as if it were that


@dataclass(frozen=True)
class Look:
    """How far back one model looks.

    Args:
        run: its folder.
        name: what figure and tables call it.
        perplexity: of the targets as the text is.
        gradient: mean norm of d loss(t) / d x(t-k) for k = 0, 1, ...
        gradient_error: standard errors of these.
        kept: numbers k of words that were left as they are.
        increase: what the loss grows by when those further back are changed, in nats, mean.
        increase_error: standard errors of these.
        effective_context: the smallest of ``kept`` from which on perplexity is less than 1 % above
            that of the text as it is; None where not even the largest is.
        gradient_reach: the smallest k from which on the mean norm is less than 1 % of the largest;
            None where the reach is too short for that.
        seconds: what it took.
    """

    run: str
    name: str
    perplexity: float
    gradient: list[float]
    gradient_error: list[float]
    kept: list[int]
    increase: list[float]
    increase_error: list[float]
    effective_context: int | None
    gradient_reach: int | None
    seconds: float


def gradient_table(looks: Sequence[Look]) -> list[str]:
    """Lines of the table of the norms, a column a model."""
    last = len(looks[0].gradient) - 1
    rows = [("steps back", *(look.name for look in looks))]
    for k in sorted({k for k in SHOWN if k < last} | {last}):
        rows.append((str(k), *(f"{look.gradient[k]:.2e}" for look in looks)))
    reaches = (_or_more(look.gradient_reach, last) for look in looks)
    rows.append(("below 1 % from", *reaches))
    return aligned(rows, left=())


def increase_table(looks: Sequence[Look], unit: str) -> list[str]:
    """Lines of the table of the increases, with standard errors, a column a model."""
    kept = looks[0].kept
    rows = [(f"{unit} kept", *(look.name for look in looks))]
    for at, k in enumerate(kept):
        cells = (f"{look.increase[at]:+.4f} ± {look.increase_error[at]:.4f}" for look in looks)
        rows.append((str(k), *cells))
    sizes = (_or_more(look.effective_context, kept[-1]) for look in looks)
    rows.append(("effective context", *sizes))
    rows.append(("perplexity", *(f"{look.perplexity:.2f}" for look in looks)))
    return aligned(rows, left=())


def _or_more(number: int | None, most: int) -> str:
    return f"more than {most}" if number is None else str(number)


def as_csv(looks: Sequence[Look]) -> str:
    """All figures, one a line: run, name, measure, k, mean, standard error."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "name", "measure", "k", "mean", "standard_error"))
    for look in looks:
        for measured, steps, means, errors in (
            ("gradient", range(len(look.gradient)), look.gradient, look.gradient_error),
            ("increase", look.kept, look.increase, look.increase_error),
        ):
            for k, mean, error in zip(steps, means, errors, strict=True):
                writer.writerow((look.run, look.name, measured, k, mean, error))
    return text.getvalue()


def draw(looks: Sequence[Look], perturb: str, unit: str) -> None:
    """Draw the gradients on the left, the increases of the loss on the right.

    On the left the largest of each model is 1, since a gradient by a vector is the larger the
    shorter the model's vectors are: how fast it falls is what matters. The names say from where on
    it is below 1 %.
    """
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(16, 7.2), layout="constrained")
    left.set_title(f"What is left of the gradient\nat the {unit[:-1]} k steps back")
    left.set_xlabel("steps back k")
    left.set_ylabel("norm of d loss(t) / d x(t-k), the largest is 1")
    _draw_gradients(left, looks)
    right.set_title(f"What it costs when all but the last k\n{unit} are {CHANGES[perturb]}")
    right.set_xlabel(f"{unit} k that stay as they are")
    right.set_ylabel("increase of the loss in nats")
    _draw_increases(right, looks, unit)


def _draw_gradients(axes: Axes, looks: Sequence[Look]) -> None:
    """The mean norms, in parts of the largest."""
    axes.set_yscale("log")
    axes.grid()
    axes.axhline(0.01, color=BLACK, linestyle=":", linewidth=2)
    _name_line(axes, 0.01, "1 %", 1, 5)
    ends = []
    for look, color in zip(looks, _colors(looks), strict=True):
        share = numpy.asarray(look.gradient) / (max(look.gradient) or 1.0)
        inside = first_below(share, LEAST_SHARE) or len(share)
        axes.plot(range(inside), share[:inside], color=color)
        about = f"{look.name}: {_or_more(look.gradient_reach, len(share) - 1)} steps"
        ends.append((inside - 1, float(share[inside - 1]), about, color))
    name_points(axes, ends)


def _draw_increases(axes: Axes, looks: Sequence[Look], unit: str) -> None:
    """The mean increases with their standard errors, to where perplexity is less than 1 % higher.

    What is smaller is lost in the noise.
    """
    from matplotlib.ticker import NullLocator

    kept = looks[0].kept
    axes.set_xscale("log")
    axes.set_yscale("log", nonpositive="clip")
    axes.set_xlim(0.9, kept[-1] * 1.1)
    axes.set_ylim(LEAST_INCREASE / 2, 2 * max(look.increase[0] for look in looks))
    ticks = [k for k in kept if str(k)[0] in "125" and str(k)[1:].strip("0") == ""]
    axes.set_xticks(ticks, map(str, ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid()
    axes.axhline(ONE_PERCENT, color=BLACK, linestyle=":", linewidth=2)
    _name_line(axes, ONE_PERCENT, "+1 % perplexity", 0, -5)
    contexts = [
        math.inf if look.effective_context is None else look.effective_context for look in looks
    ]
    ends = []
    for look, color in zip(looks, _colors(looks), strict=True):
        last = len(kept) - 1
        if look.effective_context is not None:
            last = kept.index(look.effective_context)
        steps, mean, error = (
            numpy.asarray(values[: last + 1])
            for values in (kept, look.increase, look.increase_error)
        )
        axes.fill_between(steps, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        axes.plot(steps, numpy.maximum(mean, LEAST_INCREASE), "o-", color=color)
        about = f"{look.name}: {_or_more(look.effective_context, kept[-1])} {unit}"
        height = max(look.increase[last], LEAST_INCREASE)
        if look.effective_context is not None:  # off the line, and below longer curves
            longer = sum(each > look.effective_context for each in contexts)
            height = 0.6 * ONE_PERCENT * 0.7**longer
        ends.append((kept[last], height, about, color))
    name_points(axes, ends)


def _name_line(axes: Axes, height: float, name: str, side: int, points: float) -> None:
    """Write the name of a level line at its left end (0) or its right one (1), above or below."""
    axes.annotate(
        name,
        (side, height),
        (6 - 10 * side, points),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right" if side else "left",
        va="bottom" if points > 0 else "top",
    )


def _colors(looks: Sequence[Look]) -> list[str]:
    return [PALETTE[k % len(PALETTE)] for k in range(len(looks))]
