"""Words in the order of how frequent they are, cut into a head and clusters of rarer ones.

Grave, Joulin, Cissé, Grangier and Jégou (2017), "Efficient softmax approximation for GPUs".
Cluster 0 is the head. V words, c1 < c2 < ... the cutoffs, n the words of a cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy

from common.base_layer import check_sizes
from common.np import Array, to_cpu

__all__ = ["DIV_VALUE", "WordClusters", "default_cutoffs"]

DIV_VALUE = 4.0  # by which each cluster is narrower than the one before
HEAD_SHARE = 0.8  # of the tokens
TRIED = 64  # cuts behind the head


class WordClusters:
    """Which words stand in which cluster: the c1 most frequent in the head, up to c2 in the next.

    Layers that are tied share one object.

    Args:
        vocab_size: V.
        cutoffs: c1, c2, ... in ascending order, each in 1 .. V - 1.

    Attributes:
        edges: 0, the cutoffs and V: cluster k has the ranks ``edges[k]`` to ``edges[k + 1] - 1``.
        ranks: the place of each id in the order of frequency, int32 (V,) on the host. At first the
            ids are taken to be in that order. It belongs to the weights and is saved with them.

    Raises:
        ValueError: for cutoffs that are none.
    """

    def __init__(self, vocab_size: int, cutoffs: Sequence[int]) -> None:
        check_sizes("adaptive softmax", least=2, vocab_size=vocab_size)
        self.edges = [0, *map(int, cutoffs), vocab_size]
        if len(self.edges) < 3 or any(a >= b for a, b in pairwise(self.edges)):
            raise ValueError(
                "adaptive softmax: expected one or more cutoffs in ascending order in "
                f"1..{vocab_size - 1}, got {', '.join(map(str, cutoffs)) or 'none'}"
            )
        self.ranks = numpy.arange(vocab_size, dtype=numpy.int32)

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.ranks)

    @property
    def num_tails(self) -> int:
        """How many clusters there are beside the head."""
        return len(self.edges) - 2

    @property
    def sizes(self) -> list[int]:
        """n of each cluster, the head's first."""
        return [end - begin for begin, end in pairwise(self.edges)]

    @property
    def head_size(self) -> int:
        """Classes of the head: its words, and after them one for each other cluster."""
        return self.edges[1] + self.num_tails

    def widths(self, full: int, div_value: float = DIV_VALUE) -> list[int]:
        """The width of each cluster: ``full`` over powers of ``div_value``, 1 at least."""
        return [max(1, int(full // div_value**k)) for k in range(self.num_tails + 1)]

    def set_counts(self, counts: Array) -> None:
        """Put the words into the order of their counts; of two that are equal the lower id first.

        Weights that were trained belong to the order they were trained in: set it before.

        Args:
            counts: how often each id occurs in the training text (V,).

        Raises:
            ValueError: for another shape, or a count that is negative or not finite.
        """
        counts = to_cpu(counts)
        if counts.shape != self.ranks.shape:
            raise ValueError(
                f"WordClusters.set_counts: expected counts of shape {self.ranks.shape}, "
                f"got {counts.shape}"
            )
        if not (numpy.isfinite(counts).all() and counts.min() >= 0):
            raise ValueError(
                "WordClusters.set_counts: expected finite counts of 0 or more, "
                f"got {counts.min()} to {counts.max()}"
            )
        self.ranks[_by_count(counts)] = numpy.arange(self.vocab_size)

    def places(self, ids: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
        """The cluster of each of ``ids``, an array on the host, and its place in there."""
        ranks = self.ranks[ids]
        clusters = numpy.searchsorted(self.edges[1:-1], ranks, side="right")
        return clusters, ranks - numpy.asarray(self.edges)[clusters]


def _by_count(counts: numpy.ndarray) -> numpy.ndarray:
    """Ids (V,), the most frequent first."""
    return numpy.argsort(-counts.astype("float64"), kind="stable")


def default_cutoffs(counts: Array, div_value: float = DIV_VALUE) -> tuple[int, ...]:
    """A head with most of the text, and the cut behind it with which a token costs least.

    The head has the fewest words that make up ``HEAD_SHARE`` of the tokens, so that most of the
    text is read and predicted at full width. A token of another cluster needs the scores of that
    one too: with p the share of the tokens that a cluster has, this takes

        p1 n1 / div_value + p2 n2 / div_value²

    for each token in the mean, in units of a word of the head. The least is looked for among
    ``TRIED`` cuts in equal ratios; where none is better than a single cluster, there is none.

    Args:
        counts: how often each id occurs in the training text (V,).
        div_value: by which each cluster is narrower than the one before.

    Raises:
        ValueError: for fewer than two words.
    """
    counts = to_cpu(counts)
    V = len(counts)
    check_sizes("adaptive softmax", least=2, vocab_size=V)
    reached = numpy.cumsum(counts[_by_count(counts)], dtype="float64")
    reached /= max(reached[-1], 1)  # share of the tokens up to each rank
    head = min(1 + int(numpy.searchsorted(reached, HEAD_SHARE)), V - 1)
    cuts = numpy.unique(numpy.geomspace(head, V - 1, TRIED).astype(int))[1:]
    inside, beyond = reached[cuts - 1] - reached[head - 1], 1 - reached[cuts - 1]
    cost = inside * (cuts - head) / div_value + beyond * (V - cuts) / div_value**2
    alone = (1 - reached[head - 1]) * (V - head) / div_value
    if not len(cuts) or cost.min() >= alone:
        return (head,)
    return head, int(cuts[cost.argmin()])
