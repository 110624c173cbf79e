"""What rows of scores foretell: entropy, rank of the class that came, likeliest classes.

Compiled for float32 on the CPU, where a row stays in cache for all of it; else by NumPy or CuPy,
which read and write the rows many times.

R rows, V classes: S (R, V).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy

from common import kernels
from common.kernels import address
from common.kernels.passes import SMALL
from common.np import Array, np

__all__ = ["Description", "describe"]


class Description(NamedTuple):
    """What ``describe`` finds in each row; where scores are not all finite, no finite entropy.

    Attributes:
        log_sums: log of the sum of exp(S), float64 (R,).
        entropy: of softmax(S) in nats, float64 (R,).
        rank: 1 + the number of scores above that of the class that came, int64 (R,).
        best: the k classes of the largest scores, the largest first, of equal ones the first;
            int64 (R, k).
    """

    log_sums: Array
    entropy: Array
    rank: Array
    best: Array


def describe(S: Array, ts: Array, k: int) -> Description:
    """Log-sum, entropy, rank and best classes of every row.

    With m the largest score of a row and Z the sum of exp(S - m), the entropy of p = exp(S - m) / Z
    is log Z + sum p (m - S). No term is below 0, so no digit is lost to a difference.

    Args:
        S: scores (R, V), without NaN for the best classes to mean anything; not changed.
        ts: the class that came, (R,) in 0 .. V - 1.
        k: how many classes are wanted, in 0 .. V.

    Raises:
        ValueError: where shapes do not fit, a class is out of range, or k is.
    """
    (R, V), ts = S.shape, np.asarray(ts, dtype="int64")
    if ts.shape != (R,):
        raise ValueError(f"describe: expected ts of shape ({R},), got {ts.shape}")
    if not 0 <= k <= V:
        raise ValueError(f"describe: expected k in 0..{V}, got {k}")
    if isinstance(ts, numpy.ndarray) and R and not (ts.min() >= 0 and ts.max() < V):
        raise ValueError(f"describe: expected ts in 0..{V - 1}, got {ts.min()} to {ts.max()}")
    compiled = kernels.library(S)
    if compiled is not None:
        most, total, spread = numpy.empty((3, R))
        above, best = numpy.empty(R, dtype="int64"), numpy.empty((R, k), dtype="int64")
        at = map(address, (S, np.ascontiguousarray(ts), most, total, spread, above, best))
        threads = kernels.num_threads() if S.size >= SMALL else 1
        compiled.describe(*at, R, V, k, threads)
    else:
        most, came = S.max(axis=1), S[np.arange(R), ts]
        above = (came[:, None] < S).sum(axis=1)
        distance = most[:, None] - S
        weights = np.exp(-distance)
        total = weights.sum(axis=1, dtype="float64")
        spread = (weights * distance).sum(axis=1, dtype="float64")
        best = _best(S, k)
    log_total = np.log(total)
    return Description(most + log_total, log_total + spread / total, 1 + above, best)


def _best(S: Array, k: int) -> Array:
    """The k classes of the largest scores of each row, (R, k)."""
    left, rows = S.copy(), np.arange(len(S))
    best = np.empty((len(S), k), dtype="int64")
    for column in range(k):
        best[:, column] = left.argmax(axis=1)
        left[rows, best[:, column]] = -np.inf
    return best
