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

import numpy

from common.base_layer import TimeRecurrent, check_sizes, uniform
from common.base_model import BaseModel
from common.functions import one_hot
from common.layers import Affine, Sigmoid, SoftmaxWithLoss
from common.np import Array, Scalar, np
from common.time_layers import TimeAffine, TimeLSTM, TimeSoftmaxWithLoss, TimeStack

__all__ = ["ManyToOne", "OneToMany", "OneToOne", "ReadThenWrite", "StepByStep"]

Rng = numpy.random.Generator


def _affine(kind: type, D: int, V: int, rng: Rng, dtype: str) -> Affine | TimeAffine:
    return kind(uniform(rng, D, (D, V), dtype), uniform(rng, D, (V,), dtype))


def _recurrent(cell: type[TimeRecurrent], D: int, H: int, rng: Rng, dtype: str) -> TimeRecurrent:
    width = cell.num_gates * H
    Wx, Wh = (uniform(rng, H, (rows, width), dtype) for rows in (D, H))
    return cell(Wx, Wh, uniform(rng, H, (width,), dtype))


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
        cell: TimeRNN, TimeLSTM or TimeGRU.
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
        cell: type[TimeRecurrent] = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        D, H, V = input_size, hidden_size, num_classes
        check_sizes(type(self).__name__, input_size=D, hidden_size=H, num_classes=V)
        rng = numpy.random.default_rng(rng)
        recurrent = _recurrent(cell, D, H, rng, dtype)
        self.compose([recurrent, _affine(TimeAffine, H, V, rng, dtype)], TimeSoftmaxWithLoss())


class OneToMany(StepByStep):
    """Reads one vector at the first step and nothing (zeros) after it; answers S times.

    ``predict``: (N, D) -> (N, S, V). ``forward`` takes ids (N, S).

    Args:
        input_size, hidden_size, num_classes, cell, rng, dtype: as for :class:`StepByStep`.
        num_answers: S.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_answers: int,
        cell: type[TimeRecurrent] = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__(input_size, hidden_size, num_classes, cell, rng, dtype)
        check_sizes(type(self).__name__, num_answers=num_answers)
        self.num_answers = num_answers

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """(N, D) -> scores (N, S, V)."""
        steps = np.zeros((len(xs), self.num_answers, *xs.shape[1:]), dtype=xs.dtype)
        steps[:, 0] = xs
        return super().predict(steps, train_flg)

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return dxs (N, D)."""
        return super().backward(dout)[:, 0]


class ManyToOne(BaseModel):
    """Reads to the end and answers once, from the last state.

    ``predict``: (N, T, D) -> (N, V). ``forward`` takes one class id for each example, (N,).

    Args:
        input_size, hidden_size, num_classes, cell, rng, dtype: as for :class:`StepByStep`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        cell: type[TimeRecurrent] = TimeLSTM,
        rng: Rng | int | None = None,
        dtype: str = "float32",
    ) -> None:
        D, H, V = input_size, hidden_size, num_classes
        check_sizes(type(self).__name__, input_size=D, hidden_size=H, num_classes=V)
        rng = numpy.random.default_rng(rng)
        self.recurrent = _recurrent(cell, D, H, rng, dtype)
        self.output = _affine(Affine, H, V, rng, dtype)
        self.compose([self.recurrent, self.output], SoftmaxWithLoss())

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """(N, T, D) -> scores (N, V)."""
        self._may_go_back = False
        hs = self.recurrent.forward(xs)
        self._shape = hs.shape
        return self.output.forward(hs[:, -1])

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return dxs (N, T, D)."""
        self.expect_forward()
        dh = self.output.backward(self.loss_layer.backward(dout))
        dhs = np.zeros(self._shape, dtype=dh.dtype)  # no other step is asked
        dhs[:, -1] = dh
        return self.recurrent.backward(dhs)


class ReadThenWrite(BaseModel):
    """An encoder reads to the end; from its last state a decoder writes, a symbol at a time.

    The decoder reads the symbol that it wrote before, and zeros before the first. While it
    trains, it reads the right one instead. Sutskever et al. (2014).

    ``predict``: (N, T, D) -> (N, S, V). ``forward`` takes ids (N, S).

    Args:
        input_size, hidden_size, num_classes, rng, dtype: as for :class:`StepByStep`.
        num_answers: S.
        cell: "rnn", "lstm" or "gru".

    Raises:
        ValueError: for a size below 1, or a cell that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_answers: int,
        cell: str = "lstm",
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
        """(N, T, D) -> scores (N, S, V), each step having read the likeliest symbol before it."""
        self._may_go_back = False
        self.encoder.forward(xs)
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
        self.encoder.forward(xs)
        self._may_go_back = True
        written = np.zeros((*ts.shape, self.num_classes), dtype=self.dtype)
        written[:, 1:] = one_hot(ts[:, :-1], self.num_classes, self.dtype)
        hs = self.decoder.forward(written, self.encoder.state)
        return self.loss_layer.forward(self.output.forward(hs), ts)

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return dxs (N, T, D). The two meet in the state alone."""
        self.expect_forward()
        dhs = self.output.backward(self.loss_layer.backward(dout))
        self.decoder.backward(dhs)
        return self.encoder.backward(None, self.decoder.dstate)
