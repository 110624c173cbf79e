"""One token from a row of scores."""

from __future__ import annotations

import numpy

from common.functions import softmax

__all__ = ["check_sampling", "sample_id"]


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError for a setting that makes no distribution."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"sampling: expected a temperature above 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sampling: expected top_k of 1 or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"sampling: expected top_p in (0, 1], got {top_p}")


def sample_id(
    scores: numpy.ndarray,
    rng: numpy.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw an id from softmax(scores / temperature), cut to its most likely part.

    Args:
        scores: (V,); -inf for an id that must not be drawn.
        rng: where the draw comes from.
        temperature: below 1 sharpens, above 1 flattens.
        top_k: keep the k most likely ids (Fan et al. 2018).
        top_p: keep the fewest ids whose probabilities reach p (Holtzman et al. 2020).
    """
    p = softmax(scores if temperature == 1 else scores / temperature)
    if top_k is not None or top_p is not None:
        order = numpy.argsort(-p, kind="stable")
        if top_k is not None:
            p[order[top_k:]] = 0
            p /= p.sum()
        if top_p is not None:
            before = numpy.cumsum(p[order]) - p[order]  # probability of all that are likelier
            p[order[before >= top_p]] = 0
    up_to = numpy.cumsum(p, dtype=numpy.float64)
    return int(numpy.searchsorted(up_to, rng.random() * up_to[-1], side="right"))
