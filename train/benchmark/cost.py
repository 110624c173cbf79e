"""How the cost of a step grows with each size: an exponent for each of H, V, T and N."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy

from train.benchmark.workers import Worker
from train.benchmark.works import Sizes, Work

__all__ = ["Curve", "fitted_exponent", "measure_curve"]


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """k of the line log cost = k log size + c with the smallest squared error.

    Raises:
        ValueError: for fewer than two points.
    """
    if len(sizes) < 2:
        raise ValueError(f"fitted_exponent: expected two points or more, got {len(sizes)}")
    exponent, _ = numpy.polyfit(numpy.log(sizes), numpy.log(costs), 1)
    return float(exponent)


@dataclass(frozen=True)
class Curve:
    """Milliseconds of a step of Rnnlm against one size, the samples of each point."""

    letter: str
    sizes: list[int]
    samples: list[list[float]]

    @property
    def costs(self) -> list[float]:
        """The median of each point."""
        return [median(samples) for samples in self.samples]

    @property
    def exponent(self) -> float:
        """k where the cost grows as size to the power of k."""
        return fitted_exponent(self.sizes, self.costs)


def measure_curve(
    letter: str,
    values: Sequence[int],
    ours: Worker,
    repeats: int,
    advance: Callable[[], Any],
) -> Curve:
    """Change one size of Rnnlm, leave the others as they are."""
    curve = Curve(letter, list(values), [])
    for size in values:
        sizes = replace(Sizes(), **{letter: size})  # type: ignore[arg-type]
        work = Work(f"{letter} = {size}", "step", sizes, 4, "ms/step", 1e3)
        ours.build(sizes)
        ours.call("prepare", kind="step", count=2, tries=0)
        curve.samples.append([ours.cost(work) for _ in range(repeats)])
        advance()
    return curve
