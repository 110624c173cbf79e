"""From token ids to vectors, those of rarer words by way of narrower ones."""

from __future__ import annotations

from typing import Any

import numpy

from common import kernels
from common.base_layer import Layer, batch_first, check_ratio, normal, time_major
from common.kernels.passes import add_rows, take_rows
from common.masks import Masks
from common.np import Array, array_of, np, to_cpu
from common.time_layers.clusters import DIV_VALUE, WordClusters

__all__ = ["TimeAdaptiveEmbedding"]


class TimeAdaptiveEmbedding(Layer):
    """A row of the head's table, or a narrower row of the word's cluster times its projection.

        y = W0[rank of w]                         where w is a word of the head
        y = Wk[rank of w - first of k] Qk         in cluster k

    Adaptive input representations: Baevski and Auli (2019), section 3. While training, embedding
    dropout zeroes whole words as in ``TimeEmbedding``.

    Args:
        clusters: which word stands where.
        params: W0, a row of D for each word of the head, and more that no id asks for where the
            table is an adaptive output's too; then of each other cluster Wk (n, d) and Qk (d, D).
        dropout_ratio: probability that a word is dropped, in [0, 1), rounded to 16 bits.
        rng: gives the masks their seed (``common.masks``); a fresh generator if None. Left alone
            where nothing is dropped.

    ``accumulate`` and ``train_flg`` are those of ``TimeEmbedding``. Which rows of a window are in
    which cluster is looked up on the host.

    Raises:
        ValueError: for a ratio outside [0, 1), or parameters that do not fit.
    """

    reads_ids_on_host = True

    def __init__(
        self,
        clusters: WordClusters,
        *params: Array,
        dropout_ratio: float = 0.0,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        super().__init__(*params)
        names = (f"{name}{k}" for k in range(1, clusters.num_tails + 1) for name in ("W", "Q"))
        self.param_names = ("W0", *names)
        if len(params) != len(self.param_names):
            raise ValueError(
                f"{type(self).__name__}: expected the parameters {', '.join(self.param_names)}, "
                f"got {len(params)}"
            )
        self.clusters, self.constants = clusters, {"ranks": clusters.ranks}
        self.expect_shape("W0", params[0], max(clusters.sizes[0], len(params[0])), "D")
        D = params[0].shape[1]
        for k, n in enumerate(clusters.sizes[1:], start=1):
            W, Q = params[2 * k - 1 : 2 * k + 1]
            self.expect_shape(f"W{k}", W, n, "d")
            self.expect_shape(f"Q{k}", Q, W.shape[1], D)
        self.dropout_ratio = check_ratio(type(self).__name__, dropout_ratio)
        self.masks: Any = Masks(rng) if dropout_ratio else None  # None where nothing is drawn
        self.accumulate = False

    @classmethod
    def build(
        cls,
        D: int,
        clusters: WordClusters,
        scale: float,
        rng: numpy.random.Generator,
        dtype: str,
        dropout_ratio: float = 0.0,
        div_value: float = DIV_VALUE,
    ) -> TimeAdaptiveEmbedding:
        """A layer whose vectors are normal with ``scale``, those of rarer words too.

        Its first table has rows for the clusters as well, so that an output layer can be tied to
        it. A projection is normal with 1 / sqrt(d).
        """
        params = [normal(rng, (clusters.head_size, D), scale, dtype)]
        for n, d in zip(clusters.sizes[1:], clusters.widths(D, div_value)[1:], strict=True):
            params.append(normal(rng, (n, d), scale, dtype))
            params.append(normal(rng, (d, D), d**-0.5, dtype))
        return cls(clusters, *params, dropout_ratio=dropout_ratio, rng=rng)

    def forward(self, xs: Array) -> Array:
        """Ids (N, T) -> (N, T, D)."""
        xs = to_cpu(array_of(xs))
        self.expect_shape("xs", xs, "N", "T")
        self.expect_ids("xs", xs, self.clusters.vocab_size)
        ids = xs.T.reshape(-1)
        cluster, place = self.clusters.places(ids)
        W0 = self.params[0]
        ys = np.empty((len(ids), W0.shape[1]), dtype=W0.dtype)
        read = []
        for k in range(self.clusters.num_tails + 1):
            rows = numpy.flatnonzero(cluster == k)
            if not len(rows):
                continue
            at, places = np.asarray(rows), np.asarray(place[rows])
            vectors = take_rows(self.params[_table(k)], places)
            ys[at] = kernels.product(vectors, self.params[2 * k]) if k else vectors
            read.append((k, at, places, vectors))
        factors = None
        if self.dropout_ratio and self.train_flg:
            (kept,), scale = self.masks.shared(self.dropout_ratio, (self.clusters.vocab_size,))
            factors = (kept.take(np.asarray(ids)).astype(W0.dtype) * scale)[:, None]
            ys *= factors
        shape = (*xs.T.shape, W0.shape[1])
        self.cache = None
        if self.train_flg or not self.dropout_ratio:
            self.cache = (read, factors, shape)
        return batch_first(ys.reshape(shape))

    def backward(self, dout: Array) -> None:
        """(N, T, D) -> nothing, since ids have no gradient; writes that of every parameter."""
        read, factors, (T, N, D) = self.saved()
        self.expect_shape("dout", dout, N, T, D)
        dys = time_major(dout, self.params[0].dtype).reshape(T * N, D)
        if factors is not None:
            dys = dys * factors
        if not self.accumulate:
            for gradient in self.grads:
                gradient[...] = 0
        for k, at, places, vectors in read:
            rows = dys.take(at, axis=0)
            if k:
                Q, dQ = self.params[2 * k], self.grads[2 * k]
                dQ += kernels.product(vectors.T, rows)
                rows = kernels.product(rows, Q.T)
            add_rows(self.grads[_table(k)], places, rows)


def _table(k: int) -> int:
    """The number of the parameter Wk; that of Qk is 2k."""
    return 2 * k - 1 if k else 0
