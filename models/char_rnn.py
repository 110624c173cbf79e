"""A character RNN from nothing, and the two ways to go back through it."""

from __future__ import annotations

import numpy

from common.base_layer import batch_first, check_sizes, normal, time_major, zeros
from common.base_model import BaseModel
from common.functions import one_hot
from common.layers import RNN
from common.np import Array, Scalar
from common.time_layers import TimeAffine, TimeRNN, TimeSoftmaxWithLoss
from models.language_model import LanguageModel

__all__ = ["CharRnn", "OneHotModel", "OneStepTimeRNN"]


class OneStepTimeRNN(TimeRNN):
    """TimeRNN whose gradient is cut after one step: truncated BPTT in windows of length 1.

    The state still travels through all T steps; only ``backward`` differs. It hands all steps to
    the cell as the rows of one batch, and what the cell returns for the states before them is
    dropped.
    """

    def backward(self, dhs: Array, dh_next: Array | None = None) -> Array:
        """(N, T, H) -> dxs (N, T, D); ``dh_next`` comes from a later step and is dropped too."""
        Wx, Wh, b = self.params
        xs, hs = self.saved()
        (T, N, D), H = xs.shape, hs.shape[2]
        self.expect_shape("dhs", dhs, N, T, H)
        cell = RNN(Wx, Wh, b, self.nonlinearity)
        cell.grads = self.grads
        cell.forward(xs.reshape(T * N, D), hs[:T].reshape(T * N, H))
        dxs, _ = cell.backward(time_major(dhs, hs.dtype).reshape(T * N, H))
        return batch_first(dxs.reshape(T, N, D))


class OneHotModel(LanguageModel):
    """Reads one-hot rows instead of embeddings; a sequence to learn begins from a zero state.

    ``layers`` begin with a recurrent layer over V inputs; ``loss_layer`` takes scores.
    """

    vocab_size: int

    def scores(self, xs: Array) -> Array:
        """Rows (N, T, V), one-hot or not -> scores (N, T, V) of what comes next."""
        return BaseModel.predict(self, xs)

    def predict(self, xs: Array, train_flg: bool = False) -> Array:
        """Ids (N, T) -> scores (N, T, V); goes on from the state that is kept."""
        return self.scores(one_hot(xs, self.vocab_size))

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss of whole sequences: ids (N, T) and the ids that follow them (N, T)."""
        self.reset_state()
        loss = self.loss_layer.forward(self.predict(xs), ts)
        self._may_go_back = True
        return loss

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient; return that of the one-hot rows (N, T, V)."""
        return BaseModel.backward(self, dout)


class CharRnn(OneHotModel):
    """One tanh RNN and an output layer; the loss of a word is the sum over its characters.

    Karpathy (2015), "The Unreasonable Effectiveness of Recurrent Neural Networks".

    Args:
        vocab_size: V, the size of the alphabet.
        hidden_size: H.
        one_step: cut the gradient after one step instead of going back to the word's beginning.
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1.
    """

    num_targets = 0

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int = 50,
        one_step: bool = False,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(type(self).__name__, vocab_size=vocab_size, hidden_size=hidden_size)
        V, H = vocab_size, hidden_size
        self.vocab_size = V
        rng = numpy.random.default_rng(rng)
        layer = OneStepTimeRNN if one_step else TimeRNN
        Wx, Wh = normal(rng, (V, H), 0.01, dtype), normal(rng, (H, H), 0.01, dtype)
        self.compose(
            [
                layer(Wx, Wh, zeros(H, dtype), stateful=True),
                TimeAffine(normal(rng, (H, V), 0.01, dtype), zeros(V, dtype)),
            ],
            TimeSoftmaxWithLoss(),
        )

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """-sum of log softmax(scores)[t] over the targets; ids (N, T) and ids (N, T)."""
        self.num_targets = ts.size
        return self.num_targets * super().forward(xs, ts, train_flg)

    def backward(self, dout: float = 1) -> Array:
        """Write every gradient of the summed loss; return that of the one-hot rows."""
        return super().backward(dout * self.num_targets)
