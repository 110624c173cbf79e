"""LSTM layers, dropout between all layers, one weight for input and output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from common.base_layer import check_sizes
from common.time_layers import TimeDropout, TimeLSTM
from models.ends import embedding_layer, loss_layer, output_layer, tied_output_layer
from models.language_model import LanguageModel, recurrent


class BetterRnnlm(LanguageModel):
    """Zaremba et al. (2014) with the tied weights of Press and Wolf (2017).

    Args:
        vocab_size: V.
        wordvec_size: D; must equal H where the weight is tied.
        hidden_size: H.
        dropout_ratio: probability of dropping, between all layers.
        rng: draws the initial weights and gives the masks their seed; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.
        cell: in place of the LSTM: a name, a time layer or a cell
            (``common.time_layers.time_layer``).
        num_layers: L, recurrent layers on top of each other.
        tied: whether embedding and output layer share one weight.
        sparse: whether the gradient of an embedding that is not tied is the rows that were read,
            None for whether V is large (``common.time_layers.TimeEmbedding``).
        cutoffs: where the clusters of an adaptive softmax begin in the order of frequency
            (``TimeAdaptiveOutputWithLoss``); where it is tied, the embedding is adaptive too.
            Empty for a softmax of all words alike.

    Raises:
        ValueError: for a size below 1, a cell that is not known, cutoffs that are none, or, where
            the weight is tied, D and H that differ, or a gradient of rows.
    """

    cell: Any = TimeLSTM  # a subclass may name another

    def __init__(
        self,
        vocab_size: int = 10000,
        wordvec_size: int = 650,
        hidden_size: int = 650,
        dropout_ratio: float = 0.5,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
        *,
        cell: Any = None,
        num_layers: int = 2,
        tied: bool = True,
        sparse: bool | None = None,
        cutoffs: Sequence[int] = (),
    ) -> None:
        check_sizes(
            type(self).__name__,
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        if tied and wordvec_size != hidden_size:
            raise ValueError(
                f"{type(self).__name__}: the tied weight needs wordvec_size equal to hidden_size, "
                f"got {wordvec_size} and {hidden_size}"
            )
        V, D, H = vocab_size, wordvec_size, hidden_size
        rng = numpy.random.default_rng(rng)
        cell = self.cell if cell is None else cell
        if tied:
            sparse = bool(sparse)  # a large V changes nothing
        ends = cutoffs if tied else ()
        embedding = embedding_layer(V, D, 0.01, rng, dtype, cutoffs=ends, sparse=sparse)
        layers: list[Any] = [embedding, TimeDropout(dropout_ratio, rng=rng)]
        for width in [D] + [H] * (num_layers - 1):
            layers.append(recurrent(cell, width, H, rng, dtype))
            layers.append(TimeDropout(dropout_ratio, rng=rng))
        output = tied_output_layer(embedding) if tied else output_layer(H, V, rng, dtype, cutoffs)
        self.compose([*layers, output], loss_layer(output))
