"""The smallest language model with an LSTM."""

from __future__ import annotations

import numpy

from common.layer import Recurrent
from common.time_layers import TimeAffine, TimeEmbedding, TimeLSTM, TimeOutputWithLoss
from models.language_model import LanguageModel, check_sizes, normal, recurrent, zeros


class Rnnlm(LanguageModel):
    """Embedding, one stateful LSTM, output layer.

    Args:
        vocab_size: V.
        wordvec_size: D.
        hidden_size: H.
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Raises:
        ValueError: for a size below 1.
    """

    cell: type[Recurrent] = TimeLSTM  # a subclass may name another

    def __init__(
        self,
        vocab_size: int = 10000,
        wordvec_size: int = 100,
        hidden_size: int = 100,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        check_sizes(
            type(self).__name__,
            vocab_size=vocab_size,
            wordvec_size=wordvec_size,
            hidden_size=hidden_size,
        )
        V, D, H = vocab_size, wordvec_size, hidden_size
        rng = numpy.random.default_rng(rng)
        embed_W = normal(rng, (V, D), 0.01, dtype)
        layer = recurrent(self.cell, D, H, rng, dtype)
        affine_W = normal(rng, (H, V), H**-0.5, dtype)
        output = TimeAffine(affine_W, zeros(V, dtype))
        self.compose([TimeEmbedding(embed_W), layer, output], TimeOutputWithLoss(output))
