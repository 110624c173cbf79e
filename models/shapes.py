"""The five shapes of recurrence, each a small model: vectors in, scores of classes out.

    one to one     one to many     many to one     read, then write        step by step

        y            y  y  y             y                  y  y  y           y  y  y
        |            |  |  |             |                  |  |  |           |  |  |
        h            h--h--h       h--h--h         h--h--h--h--h--h           h--h--h
        |            |             |  |  |         |  |  |     |  |           |  |  |
        x            x             x  x  x         x  x  x     y  y           x  x  x

The vectors are measurements, pixels or one-hot rows. Every example begins from a zero state, so
batches may have any size.

Shapes: N batch, T steps read, S steps written, D input width, H hidden width, V classes.
"""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import Layer, check_sizes, uniform
from common.base_model import BaseModel
from common.functions import one_hot
from common.layers import Affine, Sigmoid, SoftmaxWithLoss
from common.np import Array, Scalar, np
from common.time_layers import TimeAffine, TimeLSTM, TimeSoftmaxWithLoss, TimeStack, time_layer
from common.time_layers.cell import uniform_cell
from common.time_layers.steps import TimeFirstStep, TimeLastStep

__all__ = ["ManyToOne", "OneToMany", "OneToOne", "ReadThenWrite", "StepByStep"]

Rng = numpy.random.Generator


def _affine(kind: type, D: int, V: int, rng: Rng, dtype: str) -> Affine | TimeAffine:
    return kind(uniform(rng, D, (D, V), dtype), uniform(rng, D, (V,), dtype))


class OneToOne(BaseModel):
    """A network without time: y = sigmoid(x W1 + b1) W2 + b2.

    ``predict``: (N, D) -> (N, V). ``forward`` takes one class id for each example, (N,).

    Args:
        input_size: D.
        hidden_size: H.
        num_classes: V.
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        D, H, V = input_size, hidden_size, num_classes
        check_sizes(type(self).__name__, input_size=D, hidden_size=H, num_classes=V)
        rng = numpy.random.default_rng(rng)
        hidden, output = _affine(Affine, D, H, rng, dtype), _affine(Affine, H, V, rng, dtype)
        self.compose([hidden, Sigmoid(), output], SoftmaxWithLoss())


class StepByStep(BaseModel):
    """Answers at every step from what has been read so far.

    ``predict``: (N, T, D) -> (N, T, V). ``forward`` takes ids (N, T).

    Args:
        input_size: D.
        hidden_size: H.
        num_classes: V.
        cell: a name, a time layer or a cell (``common.time_layers.time_layer``); initial
            weights as PyTorch's (``common.time_layers.cell.uniform_cell``).
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1, or a cell that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        cell: Any = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        D, H, V = input_size, hidden_size, num_classes
        check_sizes(type(self).__name__, input_size=D, hidden_size=H, num_classes=V)
        rng = numpy.random.default_rng(rng)
        recurrent = time_layer(uniform_cell(cell), D, H, rng, dtype)
        above, loss_layer = self._answering_layers(H, V, rng, dtype)
        self.compose([recurrent, *above], loss_layer)

    def _answering_layers(self, H: int, V: int, rng: Rng, dtype: str) -> tuple[list[Layer], Layer]:
        """The layers above the recurrent one, and the loss."""
        return [_affine(TimeAffine, H, V, rng, dtype)], TimeSoftmaxWithLoss()


class OneToMany(StepByStep):
    """Reads one vector at the first step and nothing (zeros) after it; answers S times.

    ``predict``: (N, D) -> (N, S, V). ``forward`` takes ids (N, S).

    Args:
        input_size, hidden_size, num_classes, cell, rng, dtype: as for :class:`StepByStep`.
        num_answers: S.

    Raises:
        ValueError: for a size below 1, or a cell that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_answers: int,
        cell: Any = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(type(self).__name__, num_answers=num_answers)
        super().__init__(input_size, hidden_size, num_classes, cell, rng, dtype)
        self.compose([TimeFirstStep(num_answers), *self.layers], self.loss_layer)


class ManyToOne(StepByStep):
    """Reads to the end and answers once, from the last state; arguments as for StepByStep.

    ``predict``: (N, T, D) -> (N, V). ``forward`` takes one class id for each example, (N,).
    """

    def _answering_layers(self, H: int, V: int, rng: Rng, dtype: str) -> tuple[list[Layer], Layer]:
        return [TimeLastStep(), _affine(Affine, H, V, rng, dtype)], SoftmaxWithLoss()


class ReadThenWrite(BaseModel):
    """An encoder reads to the end; from its last state a decoder writes, a symbol at a time.

    The decoder reads the symbol that it wrote before, and zeros before the first. While it
    trains, it reads the right one instead. Sutskever et al. (2014).

    ``predict``: (N, T, D) -> (N, S, V). ``forward`` takes ids (N, S).

    Args:
        input_size, hidden_size, num_classes, rng, dtype: as for :class:`StepByStep`.
        num_answers: S.
        cell: a name, a time layer or a cell (``common.time_layers.time_layer``).

    Raises:
        ValueError: for a size below 1, or a cell that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_answers: int,
        cell: Any = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        D, H, V = input_size, hidden_size, num_classes
        check_sizes(type(self).__name__, input_size=D, hidden_size=H, num_classes=V)
        check_sizes(type(self).__name__, num_answers=num_answers)
        self.num_classes, self.num_answers, self.dtype = V, num_answers, dtype
        rng = numpy.random.default_rng(rng)
        self.encoder = TimeStack(D, H, cell=cell, rng=rng, dtype=dtype)
        self.decoder = TimeStack(V, H, cell=cell, rng=rng, dtype=dtype)
        self.output = _affine(TimeAffine, H, V, rng, dtype)
        self.compose([self.encoder, self.decoder, self.output], TimeSoftmaxWithLoss())

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """(N, T, D) -> scores (N, S, V); each step reads the likeliest symbol of the one before."""
        self.run([self.encoder], xs, train_flg)
        state = self.encoder.state
        written = np.zeros((len(xs), 1, self.num_classes), dtype=self.dtype)
        ys = []
        for _ in range(self.num_answers):
            hs = self.decoder.forward(written, state)
            state = self.decoder.state
            ys.append(self.output.forward(hs))
            written = one_hot(ys[-1].argmax(axis=2), self.num_classes, self.dtype)
        return np.concatenate(ys, axis=1)

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss, a scalar, for (N, T, D) and the ids to write (N, S)."""
        self.run([self.encoder], xs, train_flg)
        written = np.zeros((*ts.shape, self.num_classes), dtype=self.dtype)
        written[:, 1:] = one_hot(ts[:, :-1], self.num_classes, self.dtype)
        hs = self.decoder.forward(written, self.encoder.state)
        return self.loss_of(self.output.forward(hs), ts)

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return dxs (N, T, D).

        Encoder and decoder meet in the state alone.
        """
        dhs = self.output.backward(self.loss_gradient(dout))
        self.decoder.backward(dhs)
        return self.encoder.backward(None, self.decoder.dstate)
