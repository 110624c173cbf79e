"""What is measured: the sizes of the models, the works, the sweeps. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["MEMORY", "SWEEPS", "TIMED", "Sizes", "Work"]


@dataclass(frozen=True)
class Sizes:
    """A model and the window it is trained on, in the letters of the project."""

    model: Literal["Rnnlm", "BetterRnnlm"] = "Rnnlm"
    cell: Literal["LSTM", "GRU"] = "LSTM"
    N: int = 20
    T: int = 35
    D: int = 100
    H: int = 100
    V: int = 10_000
    dropout: float = 0.0

    @property
    def L(self) -> int:
        """Recurrent layers."""
        return 2 if self.model == "BetterRnnlm" else 1

    @property
    def num_gates(self) -> int:
        """Gates of the cell: the width of its products is this times H."""
        return {"LSTM": 4, "GRU": 3}[self.cell]


@dataclass(frozen=True)
class Work:
    """Something that every side can do.

    Args:
        name: what the table calls it and what ``--only`` looks at.
        kind: the method of a side that does it; "memory" trains and asks for the peak.
        sizes: the model.
        count: steps or tokens in one measurement.
        unit: what one of them costs is told in this unit.
        per_second: so many of the unit are a second.
        sides: who does it, ours first: "torch" is tuned, "torch_as_is" does what it does by itself.
    """

    name: str
    kind: Literal["step", "exact", "book_protocol", "generation", "memory"]
    sizes: Sizes
    count: int
    unit: str
    per_second: float = 1
    sides: tuple[str, ...] = ("ours", "torch")


EVERY_SIDE = ("ours", "torch", "torch_as_is", "book")
SMALL = Sizes()
LARGE = Sizes("BetterRnnlm", D=650, H=650, dropout=0.5)


def _step(sizes: Sizes, count: int) -> Work:
    with_gru = sizes.cell == "GRU"
    name = f"{sizes.model} step" + " with GRU" * with_gru
    sides = EVERY_SIDE[:3] if with_gru else EVERY_SIDE
    return Work(name, "step", sizes, count, "ms/step", 1e3, sides)


def _exact(sizes: Sizes, count: int) -> Work:
    return Work(f"{sizes.model} test, exact protocol", "exact", sizes, count, "µs/token", 1e6)


def _book_protocol(sizes: Sizes, count: int) -> Work:
    name = f"{sizes.model} test, book's protocol"
    return Work(name, "book_protocol", sizes, count, "µs/token", 1e6)


def _generation(sizes: Sizes, count: int) -> Work:
    return Work(f"{sizes.model} generation", "generation", sizes, count, "ms/token", 1e3)


# A measurement takes about half a second; tokens come in whole windows of both protocols.
TIMED = [
    _step(SMALL, 10),
    _step(LARGE, 2),
    _step(replace(SMALL, cell="GRU"), 10),
    _step(replace(LARGE, cell="GRU"), 2),
    _exact(SMALL, 5000),
    _exact(LARGE, 1500),
    _book_protocol(SMALL, 7000),
    _book_protocol(LARGE, 2800),
    _generation(SMALL, 200),
    _generation(LARGE, 50),
]

MEMORY = [
    Work(f"{sizes.model} memory", "memory", sizes, 4, "MB", sides=EVERY_SIDE)
    for sizes in (SMALL, LARGE)
]

# One size of Rnnlm at a time, the others as they are.
SWEEPS: dict[str, tuple[int, ...]] = {
    "H": (50, 100, 200, 400, 800),
    "V": (2500, 5000, 10_000, 20_000, 40_000),
    "T": (9, 18, 35, 70, 140),
    "N": (5, 10, 20, 40, 80),
}
