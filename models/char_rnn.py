"""A character RNN, and two rules to go back through it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from common.base_layer import Layer, check_sizes, normal, zeros
from common.np import Array, Scalar
from common.perplexity.protocols import num_counted
from common.time_layers import TimeAffine, TimeRNN, TimeSoftmaxWithLoss
from common.time_layers.one_hot import TimeOneHot
from common.time_layers.one_step_rnn import TimeOneStepRNN
from models.language_model import LanguageModel

__all__ = ["CharRnn", "SequenceModel"]


class SequenceModel(LanguageModel):
    """A language model of whole sequences: each that is learned begins from a zero state.

    ``predict``, and ``forward`` in an evaluation, go on from the state that is kept, as in every
    language model.
    """

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """The loss of whole sequences: ids (N, T) and the ids that follow them (N, T)."""
        if train_flg:
            self.reset_state()
        return super().forward(xs, ts, train_flg)


class CharRnn(SequenceModel):
    """One-hot characters, one tanh RNN, output layer; the loss is a sum over the characters.

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

    sums_loss = True
    num_targets: Scalar = 0  # of the last forward

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
        rng = numpy.random.default_rng(rng)
        layer = TimeOneStepRNN if one_step else TimeRNN
        Wx, Wh = normal(rng, (V, H), 0.01, dtype), normal(rng, (H, H), 0.01, dtype)
        self.compose(
            [
                TimeOneHot(V, dtype),
                layer(Wx, Wh, zeros(H, dtype), stateful=True),
                TimeAffine(normal(rng, (H, V), 0.01, dtype), zeros(V, dtype)),
            ],
            TimeSoftmaxWithLoss(),
        )

    def forward(self, xs: Array, ts: Array, train_flg: bool = True) -> Scalar:
        """-sum of log softmax(scores)[t] over the targets that count; ids and ids, (N, T)."""
        self.num_targets = num_counted(self, ts)
        return self.num_targets * super().forward(xs, ts, train_flg)

    def backward_by_layer(self, dout: float, of_penalties: float) -> Iterator[Layer]:
        """Write every gradient of the summed loss, one layer at a time."""
        return super().backward_by_layer(dout * self.num_targets, of_penalties)
