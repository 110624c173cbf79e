"""Small recurrent networks that learn one sentence by heart."""

from __future__ import annotations

from typing import Any, Literal

import numpy

from common.base_layer import KeptState, Layer, check_sizes, uniform
from common.functions import log_softmax, one_hot
from common.np import Array, Scalar, np
from common.perplexity.protocols import evaluation
from common.time_layers import TimeAffine, TimeMeanSquaredError, TimeRNN, TimeSoftmaxWithLoss
from common.time_layers.cell import uniform_cell
from common.time_layers.cell_inputs import TimeCellInputs
from common.time_layers.one_hot import TimeOneHot
from models.char_rnn import SequenceModel
from models.language_model import recurrent

__all__ = ["ConcatReciter", "Reciter"]


class Reciter(SequenceModel):
    """One-hot ids, one recurrent layer, output layer: y[t] = h[t] W + b.

    Initial weights and biases are PyTorch's, U(-1/sqrt(k), 1/sqrt(k)) with k inputs to the output
    layer; a cell with a ``build`` of its own keeps the weights that it chooses there.

    Args:
        vocab_size: V.
        hidden_size: H.
        cell: a name, a time layer or a cell (``common.time_layers.time_layer``).
        loss: "softmax" (negative log-likelihood) or "squared" (error against one-hot rows).
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        TypeError: for a layer that reads in both directions.
        ValueError: for a size below 1, or a cell that is not known.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 35,
        cell: Any = TimeRNN,
        loss: Literal["softmax", "squared"] = "softmax",
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(type(self).__name__, vocab_size=vocab_size, hidden_size=hidden_size)
        V, H = vocab_size, hidden_size
        k = self.output_width(V, H)
        rng = numpy.random.default_rng(rng)
        layer = self.output_inputs(recurrent(uniform_cell(cell, k), V, H, rng, dtype))
        output = TimeAffine(uniform(rng, k, (k, V), dtype), uniform(rng, k, (V,), dtype))
        self.vocab_size, self.squared = V, loss == "squared"
        self.compose(
            [TimeOneHot(V, dtype), layer, output],
            TimeMeanSquaredError() if self.squared else TimeSoftmaxWithLoss(),
        )

    @staticmethod
    def output_width(V: int, H: int) -> int:
        """k, the width of what the output layer reads."""
        return H

    @staticmethod
    def output_inputs(layer: KeptState) -> Layer:
        """The layer whose output the output layer reads."""
        return layer

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a mean over the steps: ids (N, T) and the ids that follow them (N, T)."""
        return super().forward(xs, one_hot(ts, self.vocab_size), train_flg)

    def recite_raw(self, first_id: int, length: int) -> list[int]:
        """The likeliest id ``length`` times, each time with the raw output as the next input.

        The raw output is log softmax(y) where that is what the loss reads, else y itself. The
        network has never learned to read such rows; ``generate(first_id, length, greedy=True)``
        feeds the one-hot row of the chosen id instead.
        """
        ids = []
        row = one_hot(np.asarray([[first_id]]), self.vocab_size)
        # Outputs that are fed back unchanged may grow from step to step, past every float.
        with evaluation(self), numpy.errstate(over="ignore", invalid="ignore"):
            for _ in range(length):
                row = self.run(self.layers[1:], row, train_flg=False)
                ids.append(int(row.argmax()))
                if not self.squared:
                    row = log_softmax(row)
        return ids


class ConcatReciter(Reciter):
    """A reciter whose output layer reads what its cell reads: y[t] = [x[t], h[t-1]] W + b."""

    @staticmethod
    def output_width(V: int, H: int) -> int:
        """V for x[t], H for h[t-1]."""
        return V + H

    @staticmethod
    def output_inputs(layer: KeptState) -> Layer:
        """[x[t], h[t-1]] at every step."""
        return TimeCellInputs(layer)
