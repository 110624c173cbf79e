"""What a person reads, and what a program reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from train.benchmark.cost import Curve
from train.benchmark.floor import step_flops
from train.benchmark.workers import Result

__all__ = ["Report"]

HEAD = (
    *("work", "ours", "PyTorch", "ratio", "quartiles", "untuned", "book"),
    *("floor", "reached", "by PyTorch"),
)


def _number(x: float | None) -> str:
    if x is None:
        return "-"
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


@dataclass
class Report:
    """Everything that was measured.

    Args:
        machine: see ``describe_machine``.
        threads: of every pool.
        text: where the ids come from.
        peaks: FLOP/s of the fastest product of each side.
    """

    machine: dict[str, Any]
    threads: int
    text: str
    peaks: dict[str, float] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def floor(self, result: Result) -> float | None:
        """Milliseconds of a step's products at the best rate measured; None for other works."""
        if result.work.kind != "step" or not self.peaks:
            return None
        return 1e3 * step_flops(result.work.sizes) / max(self.peaks.values())

    def reached(self, result: Result, side: str) -> float | None:
        """The floor over what the side took."""
        floor, took = self.floor(result), result.median(side)
        return None if floor is None or took is None else floor / took

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        works = []
        for result in self.results:
            ratio, low, high = result.ratio
            works.append(
                {
                    **asdict(result),
                    "median": {side: result.median(side) for side in result.samples},
                    "ratio": ratio,
                    "quartiles": [low, high],
                    "floor": self.floor(result),
                    "reached": {side: self.reached(result, side) for side in result.samples},
                }
            )
        curves = [
            {**asdict(curve), "costs": curve.costs, "exponent": curve.exponent}
            for curve in self.curves
        ]
        return {
            "machine": self.machine,
            "threads": self.threads,
            "text": self.text,
            "peak_gflops": {side: peak / 1e9 for side, peak in self.peaks.items()},
            "works": works,
            "curves": curves,
        }

    def __str__(self) -> str:
        blocks = [self._about(), *self._table(), *self._settings(), *self._growth()]
        return "\n".join(blocks)

    def _about(self) -> str:
        machine = self.machine
        lines = (
            f"{machine['cpu']}, {machine['cores']} cores, {self.threads} threads; "
            f"{machine['system']}",
            f"Python {machine['python']}, NumPy {machine['numpy']} with {machine['blas']}, "
            f"PyTorch {machine['torch']}; float32; {self.text}",
        )
        peaks = " and ".join(
            f"{peak / 1e9:.0f} GFLOP/s by {'NumPy' if side == 'ours' else 'PyTorch'}"
            for side, peak in self.peaks.items()
        )
        return "\n".join([*lines, f"fastest product: {peaks}"] if peaks else lines)

    def _table(self) -> list[str]:
        if not self.results:
            return []
        rows: list[tuple[str, ...]] = [HEAD]
        for result in self.results:
            ratio, low, high = result.ratio
            reached = [self.reached(result, side) for side in ("ours", "torch")]
            rows.append(
                (
                    f"{result.work.name}, {result.work.unit}",
                    *(_number(result.median(side)) for side in ("ours", "torch")),
                    f"{ratio:.2f}",
                    f"{low:.2f}-{high:.2f}" if len(result.samples["ours"]) > 1 else "-",
                    *(_number(result.median(side)) for side in ("torch_as_is", "book")),
                    _number(self.floor(result)),
                    *("-" if part is None else f"{part:.0%}" for part in reached),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "",
            *(
                "  ".join(
                    cell.ljust(width) if k == 0 else cell.rjust(width)
                    for k, (cell, width) in enumerate(zip(row, widths, strict=True))
                )
                for row in rows
            ),
        ]

    def _settings(self) -> list[str]:
        lines = [
            f"  {result.work.name}: "
            + ", ".join(f"{name}={value}" for name, value in result.torch_settings.items())
            for result in self.results
            if result.torch_settings
        ]
        head = "PyTorch has an allocator tuned for time or for memory, and the fastest settings"
        return ["", f"{head}; untuned has neither", *lines] if lines else []

    def _growth(self) -> list[str]:
        if not self.curves:
            return []
        powers = "   ".join(f"{curve.letter}^{curve.exponent:.2f}" for curve in self.curves)
        return ["", f"a step of Rnnlm grows as   {powers}"]
