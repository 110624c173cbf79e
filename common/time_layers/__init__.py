"""T steps at once: the layers that models are made of, one file each.

A star import brings the layers and functions of one step too.
"""

from common.functions import cross_entropy_error, sigmoid, softmax
from common.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Dropout,
    Embedding,
    MatMul,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
)
from common.np import GPU, np
from common.time_layers.activation_penalty import TimeActivationPenalty
from common.time_layers.adaptive_embedding import TimeAdaptiveEmbedding
from common.time_layers.adaptive_output import TimeAdaptiveOutput, TimeAdaptiveOutputWithLoss
from common.time_layers.attention import (
    TimeAdditiveAttention,
    TimeAttention,
    TimeGeneralAttention,
)
from common.time_layers.bidirectional import TimeBidirectional, TimeBiLSTM
from common.time_layers.cell import TimeCell, cell_named, cell_names, cells_by_name, time_layer
from common.time_layers.dropout import TimeDropout
from common.time_layers.embedding import TimeEmbedding
from common.time_layers.gru import TimeGRU
from common.time_layers.losses import TimeMeanSquaredError, TimeSigmoidWithLoss
from common.time_layers.lstm import TimeLSTM
from common.time_layers.output import TimeAffine, TimeOutputWithLoss, TimeSoftmaxWithLoss
from common.time_layers.rnn import TimeRNN
from common.time_layers.sampled_output import TimeSampledOutputWithLoss
from common.time_layers.stack import TimeStack
from common.time_layers.weight_drop import TimeWeightDrop

__all__ = [
    "GPU",
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Dropout",
    "Embedding",
    "MatMul",
    "Sigmoid",
    "SigmoidWithLoss",
    "Softmax",
    "SoftmaxWithLoss",
    "TimeActivationPenalty",
    "TimeAdaptiveEmbedding",
    "TimeAdaptiveOutput",
    "TimeAdaptiveOutputWithLoss",
    "TimeAdditiveAttention",
    "TimeAffine",
    "TimeAttention",
    "TimeBiLSTM",
    "TimeBidirectional",
    "TimeCell",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeGeneralAttention",
    "TimeLSTM",
    "TimeMeanSquaredError",
    "TimeOutputWithLoss",
    "TimeRNN",
    "TimeSampledOutputWithLoss",
    "TimeSigmoidWithLoss",
    "TimeSoftmaxWithLoss",
    "TimeStack",
    "TimeWeightDrop",
    "cell_named",
    "cell_names",
    "cells_by_name",
    "cross_entropy_error",
    "np",
    "sigmoid",
    "softmax",
    "time_layer",
]
