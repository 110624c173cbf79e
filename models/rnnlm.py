"""The smallest language model with an LSTM."""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import check_sizes, normal, zeros
from common.time_layers import TimeAffine, TimeEmbedding, TimeLSTM, TimeOutputWithLoss
from models.language_model import LanguageModel, recurrent


class Rnnlm(LanguageModel):
    """Embedding, stateful LSTM, output layer.

    Args:
        vocab_size: V.
        wordvec_size: D.
        hidden_size: H.
        rng: draws the initial weights; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.
        cell: in place of the LSTM: a name, a time layer or a cell
            (``common.time_layers.time_layer``).
        num_layers: L, recurrent layers on top of each other.
        sparse: whether the gradient of the embedding is the rows that were read, None for whether
            V is large (``common.time_layers.TimeEmbedding``).

    Raises:
        ValueError: for a size below 1, or a cell that is not known.
    """

    cell: Any = TimeLSTM  # a subclass may name another

    def __init__(
        self,
        vocab_size: int = 10000,
        wordvec_size: int = 100,
        hidden_size: int = 100,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
        *,
        cell: Any = None,
        num_layers: int = 1,
        sparse: bool | None = None,
    ) -> None:
        who, V, D, H = type(self).__name__, vocab_size, wordvec_size, hidden_size
        check_sizes(who, vocab_size=V, wordvec_size=D, hidden_size=H, num_layers=num_layers)
        rng = numpy.random.default_rng(rng)
        cell = self.cell if cell is None else cell
        embedding = TimeEmbedding(normal(rng, (V, D), 0.01, dtype), sparse=sparse)
        widths = [D] + [H] * (num_layers - 1)
        layers = [recurrent(cell, width, H, rng, dtype) for width in widths]
        affine_W = normal(rng, (H, V), H**-0.5, dtype)
        output = TimeAffine(affine_W, zeros(V, dtype))
        self.compose([embedding, *layers, output], TimeOutputWithLoss(output))
