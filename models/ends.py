"""The two ends of a language model, embedding and output layer with loss: dense, or adaptive.

They are adaptive where there are cutoffs, at which clusters of rarer words begin
(``common.time_layers.clusters``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from common.base_layer import normal, zeros
from common.np import Array
from common.time_layers import (
    TimeAdaptiveEmbedding,
    TimeAdaptiveOutput,
    TimeAdaptiveOutputWithLoss,
    TimeAffine,
    TimeEmbedding,
    TimeOutputWithLoss,
)
from common.time_layers.clusters import WordClusters
from models.language_model import tied_output

__all__ = ["embedding_layer", "loss_layer", "output_layer", "tied_output_layer"]

Embedding = TimeEmbedding | TimeAdaptiveEmbedding
Output = TimeAffine | TimeAdaptiveOutput


def embedding_layer(
    V: int,
    D: int,
    scale: float,
    rng: numpy.random.Generator,
    dtype: str,
    dropout_ratio: float = 0.0,
    cutoffs: Sequence[int] = (),
    sparse: bool | None = False,
) -> Embedding:
    """An embedding whose vectors are normal with ``scale``.

    ``sparse`` says of a dense one whether its gradient is the rows that were read.

    Raises:
        ValueError: for a ratio outside [0, 1), or cutoffs that are none.
    """
    if len(cutoffs):
        clusters = WordClusters(V, cutoffs)
        return TimeAdaptiveEmbedding.build(D, clusters, scale, rng, dtype, dropout_ratio)
    return TimeEmbedding(normal(rng, (V, D), scale, dtype), dropout_ratio, rng, sparse)


def output_layer(
    H: int, V: int, rng: numpy.random.Generator, dtype: str, cutoffs: Sequence[int] = ()
) -> Output:
    """An output layer whose matrices are normal with 1 / sqrt(their inputs), without bias at first.

    Raises:
        ValueError: for cutoffs that are none.
    """
    if len(cutoffs):
        return TimeAdaptiveOutput.build(H, WordClusters(V, cutoffs), rng, dtype)
    return TimeAffine(normal(rng, (H, V), H**-0.5, dtype), zeros(V, dtype))


def tied_output_layer(embedding: Any) -> Output:
    """An output layer whose matrices are the embedding's, transposed, with one gradient for both.

    Of an adaptive one both the words and the projections are shared (Baevski and Auli 2019).
    """
    if isinstance(embedding, TimeEmbedding):
        return tied_output(embedding)
    params = _transposed(embedding.params)
    output = TimeAdaptiveOutput(embedding.clusters, *params)
    output.write_gradients_to(_transposed(embedding.grads))
    embedding.accumulate = True
    return output


def _transposed(arrays: Sequence[Array]) -> list[Array]:
    """W0, W1, Q1, ... of an embedding as W0, b0, P1, W1, b1, ... of an output layer, b zero."""
    W0, *others = (array.T for array in arrays)
    dtype = str(W0.dtype)
    found = [W0, zeros(W0.shape[1], dtype)]
    for W, Q in zip(others[::2], others[1::2], strict=True):
        found += [Q, W, zeros(W.shape[1], dtype)]
    return found


def loss_layer(output: Output) -> TimeOutputWithLoss:
    """The loss of an output layer."""
    if isinstance(output, TimeAdaptiveOutput):
        return TimeAdaptiveOutputWithLoss(output)
    return TimeOutputWithLoss(output)
