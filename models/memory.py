"""Small recurrent networks that learn one sentence by heart."""

from __future__ import annotations

from typing import Literal

import numpy

from common.base_layer import TimeRecurrent, check_sizes, uniform
from common.functions import log_softmax, one_hot
from common.np import Array, Scalar, np
from common.time_layers import TimeAffine, TimeMeanSquaredError, TimeRNN, TimeSoftmaxWithLoss
from common.util import evaluation
from models.char_rnn import OneHotModel

__all__ = ["ConcatReciter", "Reciter"]


class Reciter(OneHotModel):
    """One recurrent layer and an output layer, y[t] = h[t] W + b.

    Initial weights and biases are PyTorch's, U(-1/sqrt(k), 1/sqrt(k)) with k inputs to the output.

    Args:
        vocab_size: V.
        hidden_size: H.
        cell: TimeRNN, TimeGRU or TimeLSTM.
        loss: "softmax" (negative log-likelihood) or "squared" (error against one-hot rows).
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 35,
        cell: type[TimeRecurrent] = TimeRNN,
        loss: Literal["softmax", "squared"] = "softmax",
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(type(self).__name__, vocab_size=vocab_size, hidden_size=hidden_size)
        V, H = vocab_size, hidden_size
        kH, width = cell.num_gates * H, self.output_width(V, H)
        self.vocab_size = V
        self.squared = loss == "squared"
        rng = numpy.random.default_rng(rng)
        shapes = (V, kH), (H, kH), (kH,), (width, V), (V,)
        Wx, Wh, b, W_out, b_out = (uniform(rng, width, shape, dtype) for shape in shapes)
        self.compose(
            [cell(Wx, Wh, b, stateful=True), TimeAffine(W_out, b_out)],
            TimeMeanSquaredError() if self.squared else TimeSoftmaxWithLoss(),
        )

    @staticmethod
    def output_width(V: int, H: int) -> int:
        """How many numbers the output layer reads at each step."""
        return H

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a mean over the steps: ids (N, T) and the ids that follow them (N, T)."""
        return super().forward(xs, one_hot(ts, self.vocab_size), train_flg)

    def recite_raw(self, first_id: int, length: int) -> list[int]:
        """The likeliest id ``length`` times, each time with the raw output as the next input.

        The raw output is log softmax(y) where that is what the loss reads, else y itself. What the
        network reads then is not what it learnt to read; ``generate(first_id, length,
        greedy=True)`` feeds the one-hot row of the chosen id instead.
        """
        ids = []
        row = one_hot(np.asarray([[first_id]]), self.vocab_size)
        # Outputs that are fed back unchanged may grow from step to step, past every float.
        with evaluation(self), numpy.errstate(over="ignore", invalid="ignore"):
            for _ in range(length):
                row = self.scores(row)
                ids.append(int(row.argmax()))
                if not self.squared:
                    row = log_softmax(row)
        return ids


class ConcatReciter(Reciter):
    """A reciter whose output reads what its cell reads: y[t] = [x[t], h[t-1]] W + b."""

    @staticmethod
    def output_width(V: int, H: int) -> int:
        """V for x[t], H for h[t-1]."""
        return V + H

    def scores(self, xs: Array) -> Array:
        """Rows (N, T, V) -> scores (N, T, V)."""
        layer, output = self.layers
        state = layer.get_state()
        hs = layer.forward(xs)
        h_first = np.zeros_like(hs[:, 0]) if state is None else state[0]
        h_prevs = np.concatenate([h_first[:, None], hs[:, :-1]], axis=1)
        return output.forward(np.concatenate([xs, h_prevs], axis=2))

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return that of the one-hot rows.

        h[t] reaches the loss through the output of step t + 1 only, and the last one not at all.
        """
        layer, output = self.layers
        dzs = output.backward(self.loss_layer.backward(dout))
        dxs, dh_prevs = dzs[:, :, : self.vocab_size], dzs[:, :, self.vocab_size :]
        dhs = np.zeros_like(dh_prevs)
        dhs[:, :-1] = dh_prevs[:, 1:]
        return dxs + layer.backward(dhs)
