"""LSTM layers, dropout between all layers, one weight for input and output."""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import check_sizes, normal, zeros
from common.time_layers import (
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    TimeOutputWithLoss,
)
from models.language_model import LanguageModel, recurrent, tied_output


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

    Raises:
        ValueError: for a size below 1, a cell that is not known, or, where the weight is tied, D
            and H that differ, or a gradient of rows.
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
        embedding = TimeEmbedding(normal(rng, (V, D), 0.01, dtype), sparse=sparse)
        layers: list[Any] = [embedding, TimeDropout(dropout_ratio, rng=rng)]
        for width in [D] + [H] * (num_layers - 1):
            layers.append(recurrent(cell, width, H, rng, dtype))
            layers.append(TimeDropout(dropout_ratio, rng=rng))
        if tied:
            output = tied_output(embedding)
        else:
            output = TimeAffine(normal(rng, (H, V), H**-0.5, dtype), zeros(V, dtype))
        self.compose([*layers, output], TimeOutputWithLoss(output))
