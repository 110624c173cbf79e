"""The language model before gates."""

from __future__ import annotations

from common.time_layers import TimeRNN
from models.rnnlm import Rnnlm


class SimpleRnnlm(Rnnlm):
    """Embedding, one stateful tanh RNN, output layer; arguments as for :class:`Rnnlm`."""

    cell = TimeRNN
