"""LSTM layers with every regularization that a small corpus asks for, and a tied weight."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy

from common.base_layer import check_sizes, normal, zeros
from common.time_layers import (
    TimeActivationPenalty,
    TimeAffine,
    TimeDropout,
    TimeLSTM,
    TimeSampledOutputWithLoss,
    TimeWeightDrop,
)
from models.ends import embedding_layer, loss_layer, tied_output_layer
from models.language_model import LanguageModel, recurrent


class AwdRnnlm(LanguageModel):
    """The AWD-LSTM of Merity et al. (2018); its ratios for the Penn Treebank are the defaults.

    Embedding, L LSTM layers of width H, the last of width D so that its output fits the tied
    weight (Press and Wolf 2017). With ``projection`` the last is as wide as the others, and an
    affine layer takes its output, after dropout and penalties, from H down to D (Melis et al.
    2018). Every dropout mask is drawn once for a window; a ratio or a weight of 0 adds no layer.

    Args:
        vocab_size: V.
        wordvec_size: D, width of the tied weight.
        hidden_size: H.
        num_layers: L.
        embed_dropout: probability of dropping a word of the vocabulary.
        input_dropout: probability of dropping what the first LSTM reads.
        hidden_dropout: the same between the LSTMs.
        output_dropout: the same after the last LSTM.
        weight_drop: probability of dropping an element of Wh, in every LSTM.
        alpha: weight of activation regularization, on the last LSTM's output after dropout.
        beta: weight of temporal activation regularization, on the same before dropout.
        projection: whether an affine layer, with a bias, stands before the output layer.
        forget_bias: where the biases of the forget gates begin; for LSTMs only.
        embed_scale: standard deviation of the initial embedding.
        sampled_classes: K, how many classes a training pass draws for its softmax in the mean
            (``TimeSampledOutputWithLoss``); 0 for the whole softmax.
        cutoffs: where the clusters of an adaptive softmax begin in the order of frequency
            (``TimeAdaptiveOutputWithLoss``), tied to an adaptive embedding; empty for a softmax of
            all words alike.
        rng: draws the initial weights and gives the masks their seed; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.
        cell: in place of the LSTM: a name, a time layer or a cell
            (``common.time_layers.time_layer``).

    Raises:
        ValueError: for a size below 1, a ratio outside [0, 1), a weight of a penalty below 0, a
            single layer without projection whose H is not D, cutoffs that are none, or cutoffs
            beside ``sampled_classes``.
    """

    cell: Any = TimeLSTM  # a subclass may name another

    def __init__(
        self,
        vocab_size: int = 10000,
        wordvec_size: int = 400,
        hidden_size: int = 1150,
        num_layers: int = 3,
        *,
        embed_dropout: float = 0.1,
        input_dropout: float = 0.4,
        hidden_dropout: float = 0.25,
        output_dropout: float = 0.4,
        weight_drop: float = 0.5,
        alpha: float = 2.0,
        beta: float = 1.0,
        projection: bool = False,
        forget_bias: float = 0.0,
        embed_scale: float = 0.01,
        sampled_classes: int = 0,
        cutoffs: Sequence[int] = (),
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
        cell: Any = None,
    ) -> None:
        check_sizes(
            type(self).__name__,
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        if num_layers == 1 and not projection and wordvec_size != hidden_size:
            raise ValueError(
                f"{type(self).__name__}: a single layer without projection needs hidden_size equal "
                f"to wordvec_size, got {hidden_size} and {wordvec_size}"
            )
        if sampled_classes and len(cutoffs):
            raise ValueError(
                f"{type(self).__name__}: expected sampled_classes 0 where the softmax is adaptive, "
                f"got {sampled_classes}"
            )
        V, D, H = vocab_size, wordvec_size, hidden_size
        rng = numpy.random.default_rng(rng)
        embedding = embedding_layer(V, D, embed_scale, rng, dtype, embed_dropout, cutoffs)
        widths = [D] + [H] * (num_layers - 1) + [H if projection else D]
        cell = self.cell if cell is None else cell
        lstms = [recurrent(cell, *pair, rng, dtype, forget_bias) for pair in pairwise(widths)]

        def dropout(ratio: float) -> list[Any]:
            return [TimeDropout(ratio, variational=True, rng=rng)] if ratio else []

        def penalty(**weight: float) -> list[Any]:
            return [TimeActivationPenalty(**weight)] if any(weight.values()) else []

        layers: list[Any] = [embedding, *dropout(input_dropout)]
        for k, lstm in enumerate(lstms):
            if k > 0:
                layers += dropout(hidden_dropout)
            layers.append(TimeWeightDrop(lstm, weight_drop, rng) if weight_drop else lstm)
        layers += penalty(beta=beta) + dropout(output_dropout) + penalty(alpha=alpha)
        if projection:
            layers.append(TimeAffine(normal(rng, (H, D), H**-0.5, dtype), zeros(D, dtype)))

        output = tied_output_layer(embedding)
        loss = loss_layer(output)
        if sampled_classes:
            loss = TimeSampledOutputWithLoss(output, sampled_classes, rng)
        self.compose([*layers, output], loss)
