"""Two LSTM layers, dropout between all layers, one weight for input and output."""

from __future__ import annotations

import numpy

from common.layer import Recurrent
from common.time_layers import (
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    TimeOutputWithLoss,
)
from models.language_model import LanguageModel, check_sizes, normal, recurrent, zeros


class BetterRnnlm(LanguageModel):
    """Zaremba et al. (2014) with the tied weights of Press and Wolf (2017).

    Args:
        vocab_size: V.
        wordvec_size: D; must equal H, because the weight is tied.
        hidden_size: H.
        dropout_ratio: probability of dropping, between all layers.
        rng: draws the initial weights, then the dropout masks; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1, or D and H that differ.
    """

    cell: type[Recurrent] = TimeLSTM  # a subclass may name another

    def __init__(
        self,
        vocab_size: int = 10000,
        wordvec_size: int = 650,
        hidden_size: int = 650,
        dropout_ratio: float = 0.5,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(
            type(self).__name__,
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
        )
        if wordvec_size != hidden_size:
            raise ValueError(
                f"{type(self).__name__}: the tied weight needs wordvec_size equal to hidden_size, "
                f"got {wordvec_size} and {hidden_size}"
            )
        V, D, H = vocab_size, wordvec_size, hidden_size
        rng = numpy.random.default_rng(rng)
        embed_W = normal(rng, (V, D), 0.01, dtype)
        layer1 = recurrent(self.cell, D, H, rng, dtype)
        layer2 = recurrent(self.cell, H, H, rng, dtype)

        embedding = TimeEmbedding(embed_W)
        output = TimeAffine(embed_W.T, zeros(V, dtype))
        # One weight, one gradient: the output layer, first in the backward pass, writes it
        # and the embedding adds its rows.
        output.grads[0] = embedding.grads[0].T
        embedding.accumulate = True

        self.compose(
            [
                embedding,
                TimeDropout(dropout_ratio, rng=rng),
                layer1,
                TimeDropout(dropout_ratio, rng=rng),
                layer2,
                TimeDropout(dropout_ratio, rng=rng),
                output,
            ],
            TimeOutputWithLoss(output),
        )
