"""One token from a row of scores."""

from __future__ import annotations

import numpy

from common import native

__all__ = ["check_sampling", "sample_id"]

BLOCK = 128  # ids whose weights are summed before one of them is looked for


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

    Raises:
        ValueError: for scores that make no distribution: with NaN, or nothing above -inf.
    """
    by = max(1e-30, min(1 / temperature, 1e30))  # 0 and -inf times it stay what they are
    kernels = native.library(scores) if top_k is None and top_p is None else None
    if kernels is not None:
        return _draw_compiled(kernels, scores, by, rng)
    most = scores.max()
    _check_distribution(numpy.isfinite(most))
    p = numpy.exp((scores - most) * by)
    if top_k is not None or top_p is not None:
        p /= p.sum()
        order = numpy.argsort(-p, kind="stable")
        if top_k is not None:
            p[order[top_k:]] = 0
            p /= p.sum()
        if top_p is not None:
            before = numpy.cumsum(p[order]) - p[order]  # probability of all that are likelier
            p[order[before >= top_p]] = 0
    return _draw(p, rng)


def _check_distribution(right: bool) -> None:
    if not right:
        raise ValueError("sampling: expected scores without NaN and with one above -inf")


def _draw_compiled(
    kernels: native.Kernels, scores: numpy.ndarray, by: float, rng: numpy.random.Generator
) -> int:
    """An id from softmax(scores * by), without an array of weights."""
    sums = numpy.empty(-(-len(scores) // kernels.draw_block()))
    sums_at = native.address(sums)
    drawn = kernels.draw(native.address(scores), len(scores), by, rng.random(), sums_at)
    _check_distribution(drawn >= 0)
    return drawn


def _draw(weights: numpy.ndarray, rng: numpy.random.Generator) -> int:
    """An id, each as likely as its weight (V,) is large: first its block, then its place there.

    The running sum of all V weights takes longer than their exponentials; this needs two short
    ones.
    """
    starts = numpy.arange(0, len(weights), BLOCK)
    up_to = numpy.add.reduceat(weights, starts).cumsum(dtype=numpy.float64)
    at = rng.random() * up_to[-1]
    block = int(up_to.searchsorted(at, side="right"))
    if block:
        at -= up_to[block - 1]
    first = block * BLOCK
    inside = weights[first : first + BLOCK]
    place = int(inside.cumsum(dtype=numpy.float64).searchsorted(at, side="right"))
    if place == len(inside):  # the two sums round differently: it is the last possible id
        place = int(numpy.flatnonzero(inside)[-1])
    return first + place
