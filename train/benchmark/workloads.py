"""What the speed benchmark measures: models and their sizes, workloads, sweeps, token ids.

The process of every side imports this module before its threads are limited and its memory is
measured. So it imports nothing heavy, NumPy included.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy

__all__ = [
    "MEMORY",
    "SIDES",
    "SWEEPS",
    "TIMED",
    "Sizes",
    "TokenIds",
    "Workload",
    "matrix_peak",
    "training_chunk",
]

# Who takes part, under the names of the JSON file, and the module with its class Side. PyTorch
# takes part twice: tuned, and with its own defaults.
SIDES = {
    "time_layers": "time_layers",
    "torch": "pytorch",
    "torch_as_is": "pytorch",
    "book": "book",
}

PRODUCTS = ((2048, 2048, 2048), (1024, 4096, 1024), (4096, 1024, 4096), (700, 650, 10_000))


@dataclass(frozen=True)
class Sizes:
    """A model and the window it is trained on.

    With ``cutoffs``, Rnnlm has an adaptive softmax; with ``tied``, an adaptive embedding with the
    same weights too.
    """

    model: Literal["Rnnlm", "BetterRnnlm"] = "Rnnlm"
    cell: Literal["LSTM", "GRU"] = "LSTM"
    N: int = 20
    T: int = 35
    D: int = 100
    H: int = 100
    V: int = 10_000
    dropout: float = 0.0
    cutoffs: tuple[int, ...] = ()
    tied: bool = False

    @property
    def L(self) -> int:
        """Number of recurrent layers."""
        return 2 if self.model == "BetterRnnlm" else 1

    @property
    def step_flops(self) -> int:
        """Floating-point operations of the matrix products of one training step.

        A product (M, K) by (K, N) takes 2 M K N operations. Each weight is in one product of the
        forward pass and in two of the same size in the backward pass: for its own gradient and for
        that of its input. What an adaptive softmax takes depends on the words, and is not known.
        """
        num_gates = {"LSTM": 4, "GRU": 3}[self.cell]
        input_widths = [self.D] + [self.H] * (self.L - 1)
        recurrent = sum((width + self.H) * num_gates * self.H for width in input_widths)
        return 3 * 2 * self.N * self.T * (recurrent + self.H * self.V)


@dataclass(frozen=True)
class Workload:
    """Work that every side can do.

    Args:
        name: its row in the table; ``--only`` selects by it.
        kind: the method of a side that does it; "memory" trains and reads the peak.
        sizes: the model.
        count: steps or tokens in one measurement.
        unit: unit of the cost of one step or token.
        per_second: how many of that unit make a second.
        sides: who does it, in the order of the turns.
    """

    name: str
    kind: Literal["step", "exact", "book_protocol", "generation", "memory"]
    sizes: Sizes
    count: int
    unit: str
    per_second: float = 1
    sides: tuple[str, ...] = ("time_layers", "torch")


SMALL = Sizes()
LARGE = Sizes("BetterRnnlm", D=650, H=650, dropout=0.5)


def _step(sizes: Sizes, count: int) -> Workload:
    with_gru = sizes.cell == "GRU"  # which the book's code does not have
    name = f"{sizes.model} step" + " with GRU" * with_gru
    sides = tuple(side for side in SIDES if not (with_gru and side == "book"))
    return Workload(name, "step", sizes, count, "ms/step", 1e3, sides)


def _exact(sizes: Sizes, count: int) -> Workload:
    return Workload(f"{sizes.model} test, exact protocol", "exact", sizes, count, "µs/token", 1e6)


def _book_protocol(sizes: Sizes, count: int) -> Workload:
    name = f"{sizes.model} test, book's protocol"
    return Workload(name, "book_protocol", sizes, count, "µs/token", 1e6)


def _generation(sizes: Sizes, count: int) -> Workload:
    return Workload(f"{sizes.model} generation", "generation", sizes, count, "ms/token", 1e3)


# One measurement takes about half a second. The counts of tokens are whole windows of both
# protocols.
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
    Workload(f"{sizes.model} memory", "memory", sizes, 4, "MB", sides=tuple(SIDES))
    for sizes in (SMALL, LARGE)
]

# Sizes of Rnnlm that are varied, one at a time.
SWEEPS: dict[str, tuple[int, ...]] = {
    "H": (50, 100, 200, 400, 800),
    "V": (2500, 5000, 10_000, 20_000, 40_000),
    "T": (9, 18, 35, 70, 140),
    "N": (5, 10, 20, 40, 80),
}


@dataclass(frozen=True, eq=False)
class TokenIds:
    """Training and test text as ids of a vocabulary of V words.

    Args:
        train: ids (tokens,).
        test: ids (tokens,).
        first_id: fed before the first token of the test text.
        vocab_size: V.
    """

    train: numpy.ndarray
    test: numpy.ndarray
    first_id: int
    vocab_size: int

    def stretched(self, V: int) -> TokenIds:
        """The same text over V words: the ids are spread evenly over 0 .. V - 1."""
        if self.vocab_size == V:
            return self
        train, test = (
            (ids.astype("int64") * V // self.vocab_size).astype(ids.dtype)
            for ids in (self.train, self.test)
        )
        return TokenIds(train, test, self.first_id * V // self.vocab_size, V)


def training_chunk(ids: numpy.ndarray, number: int, length: int) -> numpy.ndarray:
    """Chunk ``number`` of the text: ``length`` + 1 ids, for ``length`` inputs and their targets.

    Consecutive chunks overlap by one id; after the last the text begins again.

    Raises:
        ValueError: where the text has no more than ``length`` ids.
    """
    num_starts = len(ids) - length
    if num_starts < 1:
        raise ValueError(f"training_chunk: expected more than {length} ids, got {len(ids)}")
    start = number * length % num_starts
    return ids[start : start + length + 1]


def matrix_peak(
    make_product: Callable[[int, int, int], Callable[[], object]],
    timer: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of the fastest of a few float32 products: no implementation of a step can be faster.

    Args:
        make_product: from M, K and N to a function that multiplies (M, K) by (K, N).
        timer: returns seconds.
    """
    rates = []
    for M, K, N in PRODUCTS:
        product = make_product(M, K, N)
        product()
        fastest = min(timeit.repeat(product, timer=timer, repeat=8, number=1))
        rates.append(2 * M * K * N / fastest)
    return max(rates)
