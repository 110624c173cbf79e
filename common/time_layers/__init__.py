"""T steps at once: the layers that models are made of.

Layers meet at (N, T, ·), batch first. Inside, time comes first: the memory of one step is then
contiguous, and what one layer hands to the next needs no copy. Recurrent layers carry their state
from call to call when ``stateful``; the gradient stops at the window's edge (truncated
backpropagation through time, Williams and Peng 1990).

Shapes: N batch, T time steps, D input width, H hidden width, V vocabulary.
"""

from common.layers import GRU, LSTM, RNN
from common.np import np
from common.time_layers.activation_penalty import TimeActivationPenalty
from common.time_layers.dropout import TimeDropout
from common.time_layers.output import TimeOutputWithLoss
from common.time_layers.recurrent import TimeBiLSTM, TimeGRU, TimeLSTM, TimeRNN
from common.time_layers.squared_error import TimeMeanSquaredError
from common.time_layers.stack import TimeStack
from common.time_layers.vocabulary import (
    TimeAffine,
    TimeEmbedding,
    TimeSigmoidWithLoss,
    TimeSoftmaxWithLoss,
)
from common.time_layers.weight_drop import TimeWeightDrop

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TimeActivationPenalty",
    "TimeAffine",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeMeanSquaredError",
    "TimeOutputWithLoss",
    "TimeRNN",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "TimeStack",
    "TimeWeightDrop",
    "np",
]
