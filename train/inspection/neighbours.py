"""Which words an embedding puts next to each other."""

from __future__ import annotations

from typing import Any

import numpy

from common.np import to_cpu
from common.time_layers import TimeEmbedding

__all__ = ["embedding_of", "nearest"]


def embedding_of(model: Any) -> numpy.ndarray | None:
    """The table (V, D) by which a model reads its tokens; None of one that has no such table."""
    layers = [layer for layer in model.layers if isinstance(layer, TimeEmbedding)]
    return to_cpu(layers[0].params[0]) if layers else None


def nearest(
    W: numpy.ndarray, ids: numpy.ndarray, count: int
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The rows of a table with the largest cosine to each of some rows, themselves left out.

    Args:
        W: (V, D).
        ids: which rows, (K,).
        count: how many to each; V - 1 at most are found.

    Returns:
        Ids, int32, and their cosines, float32, both (K, found), the nearest first. The cosine with
        a row of zeros is 0.
    """
    lengths = numpy.sqrt((W.astype("float64") ** 2).sum(axis=1))
    unit = (W / numpy.where(lengths > 0, lengths, 1)[:, None]).astype("float32")
    found = min(count, len(W) - 1)
    near = numpy.empty((len(ids), found), "int32")
    cosine = numpy.empty((len(ids), found), "float32")
    for at in range(0, len(ids), 256):  # so that no (K, V) matrix is needed
        rows = ids[at : at + 256]
        similar = unit[rows] @ unit.T
        similar[numpy.arange(len(rows)), rows] = -numpy.inf
        order = numpy.argsort(-similar, axis=1, kind="stable")[:, :found]
        near[at : at + 256] = order
        cosine[at : at + 256] = numpy.take_along_axis(similar, order, axis=1)
    return near, cosine
