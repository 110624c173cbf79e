"""The adaptive softmax: frequent words in full, clusters of rarer ones at a fraction of the cost.

R = T N rows, H inputs, V words. The head has its own words and a class for each other cluster;
cluster k has n words, width d and r rows whose target is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy

from common import kernels
from common.base_layer import Layer, batch_first, normal, time_major, zeros
from common.functions import log_softmax
from common.np import Array, Scalar, array_of, np, to_cpu
from common.time_layers.clusters import DIV_VALUE, WordClusters
from common.time_layers.output import TimeAffine, TimeOutputWithLoss, check_targets

__all__ = ["TimeAdaptiveOutput", "TimeAdaptiveOutputWithLoss"]


class TimeAdaptiveOutput(Layer):
    """Log-probabilities of all words, of rarer ones in two steps: the cluster, and which of it.

        log p(w) = log softmax(x W0 + b0)[w]                     where w is a word of the head
        log p(w) = log softmax(x W0 + b0)[cluster k] + log softmax(x Pk Wk + bk)[w]     in cluster k

    They are exact, and their exponentials add up to one. Grave et al. (2017), section 4; the same
    as ``torch.nn.AdaptiveLogSoftmaxWithLoss``, where biases of the clusters are zero.

    Args:
        clusters: which word stands where.
        params: W0 (H, words of the head and one for each other cluster) and b0, then of each other
            cluster Pk (H, d), Wk (d, n) and bk (n,).

    Attributes:
        num_classes: V.
        parts: layers with W0 and b0, and with Wk and bk of each other cluster.
        constants: the ranks of the words.

    Raises:
        ValueError: for parameters that do not fit.
    """

    reads_ids_on_host = True

    def __init__(self, clusters: WordClusters, *params: Array) -> None:
        super().__init__(*params)
        names = [f"{name}{k}" for k in range(1, clusters.num_tails + 1) for name in ("P", "W", "b")]
        self.param_names = ("W0", "b0", *names)
        if len(params) != len(self.param_names):
            raise ValueError(
                f"{type(self).__name__}: expected the parameters {', '.join(self.param_names)}, "
                f"got {len(params)}"
            )
        self.clusters, self.num_classes = clusters, clusters.vocab_size
        self.constants = {"ranks": clusters.ranks}
        self.expect_shape("W0", params[0], "H", clusters.head_size)
        H = len(params[0])
        for k, n in enumerate(clusters.sizes[1:], start=1):
            P, W = params[3 * k - 1 : 3 * k + 1]
            self.expect_shape(f"P{k}", P, H, "d")
            self.expect_shape(f"W{k}", W, P.shape[1], n)
        self.parts = [TimeAffine(*params[3 * k : 3 * k + 2]) for k in range(len(clusters.sizes))]
        self.write_gradients_to(self.grads)

    @classmethod
    def build(
        cls,
        H: int,
        clusters: WordClusters,
        rng: numpy.random.Generator,
        dtype: str,
        div_value: float = DIV_VALUE,
    ) -> TimeAdaptiveOutput:
        """A layer whose matrices are normal with 1 / sqrt(their inputs); biases are zero."""
        n = clusters.head_size
        params = [normal(rng, (H, n), H**-0.5, dtype), zeros(n, dtype)]
        for n, d in zip(clusters.sizes[1:], clusters.widths(H, div_value)[1:], strict=True):
            params.append(normal(rng, (H, d), H**-0.5, dtype))
            params.append(normal(rng, (d, n), d**-0.5, dtype))
            params.append(zeros(n, dtype))
        return cls(clusters, *params)

    def write_gradients_to(self, arrays: Sequence[Array]) -> None:
        """Take ``arrays`` for ``grads``, such as those of an embedding with the same weights."""
        self.grads = list(arrays)
        for k, part in enumerate(self.parts):
            part.grads = self.grads[3 * k : 3 * k + 2]

    def projection(self, k: int) -> tuple[Array, Array]:
        """Pk and its gradient, k from 1 on."""
        return self.params[3 * k - 1], self.grads[3 * k - 1]

    def set_bias(self, log_p: numpy.ndarray) -> None:
        """With every other score at zero, let the log-probabilities of the ids be ``log_p`` (V,).

        Args:
            log_p: on the host, in float64.
        """
        edges = self.clusters.edges
        by_rank = numpy.empty_like(log_p)
        by_rank[self.clusters.ranks] = log_p
        head, *others = (by_rank[begin:end] for begin, end in pairwise(edges))
        totals = [numpy.logaddexp.reduce(log_p) for log_p in others]
        self.parts[0].set_bias(numpy.concatenate([head, totals]))
        for part, log_p, total in zip(self.parts[1:], others, totals, strict=True):
            part.set_bias(log_p - total)

    def forward(self, x: Array) -> Array:
        """(N, T, H) -> (N, T, V), the log-probability of each id."""
        W0 = self.params[0]
        self.expect_shape("x", x, "N", "T", len(W0))
        xs = time_major(x, W0.dtype)
        T, N, H = xs.shape
        self.cache = (xs,)
        log_p = np.empty((T * N, self.num_classes), dtype=W0.dtype)
        for k, part in enumerate(self._log_p(xs.reshape(T * N, H))):
            begin, end = self.clusters.edges[k : k + 2]
            log_p[:, begin:end] = part[:, : end - begin]
        ys = log_p.take(np.asarray(self.clusters.ranks), axis=1)
        return batch_first(ys.reshape(T, N, self.num_classes))

    def _log_p(self, X: Array) -> Iterator[Array]:
        """Of the classes of the head (R, head), then of the words of each cluster (R, n)."""
        W0, b0 = self.parts[0].params
        in_head = log_softmax(kernels.product(X, W0, bias=b0))
        yield in_head
        for k, part in enumerate(self.parts[1:], start=1):
            W, b = part.params
            narrow = kernels.product(X, self.projection(k)[0])
            log_p = log_softmax(kernels.product(narrow, W, bias=b))
            log_p += in_head[:, self.clusters.edges[1] + k - 1, None]
            yield log_p

    def backward(self, dout: Array) -> Array:
        """The gradient of the log-probabilities (N, T, V) -> dx (N, T, H)."""
        (xs,) = self.saved()
        T, N, H = xs.shape
        self.expect_shape("dout", dout, N, T, self.num_classes)
        X, clusters = xs.reshape(T * N, H), self.clusters
        by_id = time_major(dout, xs.dtype).reshape(T * N, -1)
        by_rank = np.empty_like(by_id)
        by_rank[:, np.asarray(clusters.ranks)] = by_id
        in_head, *others = self._log_p(X)
        head_size = clusters.edges[1]
        dlog_p = np.zeros_like(in_head)
        dlog_p[:, :head_size] = by_rank[:, :head_size]
        dX = np.zeros_like(X)
        for k, inside in enumerate(others, start=1):
            P, dP = self.projection(k)
            of_cluster = head_size + k - 1  # its class in the head
            inside -= in_head[:, of_cluster, None]
            dinside = by_rank[:, clusters.edges[k] : clusters.edges[k + 1]]
            dlog_p[:, of_cluster] = dinside.sum(axis=1)
            dnarrow = _back_to_inputs(self.parts[k], kernels.product(X, P), inside, dinside)
            kernels.product(X.T, dnarrow, out=dP)
            dX += kernels.product(dnarrow, P.T)
        dX += _back_to_inputs(self.parts[0], X, in_head, dlog_p)
        return batch_first(dX.reshape(T, N, H))


def _back_to_inputs(part: TimeAffine, X: Array, log_p: Array, dlog_p: Array) -> Array:
    """Write dW and db, where log_p = log softmax(X W + b); return dX."""
    dW, db = part.grads
    dscores = dlog_p - np.exp(log_p) * dlog_p.sum(axis=1, keepdims=True)
    kernels.product(X.T, dscores, out=dW)
    db[...] = dscores.sum(axis=0)
    return kernels.product(dscores, part.params[0].T)


class TimeAdaptiveOutputWithLoss(TimeOutputWithLoss):
    """The mean of -log p(t) of an adaptive output; of a cluster only the rows that are in it.

    The loss of a word is that of its class in the head, and in a cluster that of its place there
    as well. Each of the two is the loss of a ``TimeOutputWithLoss``: the head's on all R rows, the
    cluster's on its r rows. The loss of all is the mean over the targets that count, so

        loss = loss of the head + sum of (r / number of targets) * loss of cluster k

    A cluster that is no row's target is not read, and has the gradient zero.

    Which rows those are is looked up on the host. Ids that lie on a device are waited for, so a
    model with this layer leaves them on the host (``common.np.ids_on_device``): a step then waits
    for nothing and uploads the rows of each cluster.

    Args:
        output: whose gradients are written.
        ignore_label: the target that counts for nothing.
    """

    output: TimeAdaptiveOutput
    reads_ids_on_host = True

    def __init__(self, output: TimeAdaptiveOutput, ignore_label: int = -1) -> None:
        super().__init__(output, ignore_label)
        self.parts = [TimeOutputWithLoss(part) for part in output.parts]

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """Inputs (N, T, H) of the output layer, targets (N, T) or one-hot -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        output, clusters = self.output, self.output.clusters
        W0 = output.params[0]
        self.expect_shape("xs", xs, "N", "T", len(W0))
        N, T, H = xs.shape
        self.cache = None
        ts = to_cpu(array_of(ts))
        ts = check_targets(self, ts, (N, T, output.num_classes), self.ignore_label)
        ts = ts.swapaxes(0, 1).reshape(-1)
        counts = ts != self.ignore_label
        num_targets = max(int(counts.sum()), 1)
        cluster, place = clusters.places(ts * counts)
        cluster[~counts] = -1

        X = time_major(xs, W0.dtype).reshape(T * N, H)
        classes = numpy.where(cluster == 0, place, clusters.edges[1] + cluster - 1)
        classes[~counts] = self.parts[0].ignore_label
        for part in self.parts:
            part.train_flg = self.train_flg
        loss = self.parts[0].forward(X[None], classes[None])
        tails = {}
        for k in range(1, len(self.parts)):
            rows = numpy.flatnonzero(cluster == k)
            if not len(rows):
                continue
            at, share = np.asarray(rows), len(rows) / num_targets
            inputs = X.take(at, axis=0)
            narrow = kernels.product(inputs, output.projection(k)[0])
            loss = loss + share * self.parts[k].forward(narrow[None], place[rows][None])
            tails[k] = (at, share, inputs)
        if self.train_flg:
            self.cache = (tails, (N, T, H))
        return loss

    def losses_and_scores(self, xs: Array, ts: Array) -> tuple[Array, Array]:
        """The losses (N T,) and the log-probabilities (N T, V), time first.

        Args:
            xs: inputs (N, T, H) of the output layer.
            ts: targets (N, T); the loss of one that is ignored is 0.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        self.cache = None  # no backward pass may follow
        log_p = time_major(self.output.forward(xs))
        T, N, V = log_p.shape
        ts = check_targets(self, to_cpu(array_of(ts)), (N, T, V), self.ignore_label)
        ts = np.asarray(ts.swapaxes(0, 1).reshape(-1))
        counts, scores = ts != self.ignore_label, log_p.reshape(T * N, V)
        losses = -scores[np.arange(len(ts)), ts * counts].astype("float64")
        return np.where(counts, losses, 0), scores

    def backward(self, dout: float = 1) -> Array:
        """Write the gradients of the output layer; return dxs (N, T, H)."""
        tails, (N, T, H) = self.saved()
        dX = self.parts[0].backward(dout)[0]
        for k in range(1, len(self.parts)):
            P, dP = self.output.projection(k)
            if k not in tails:
                for gradient in (dP, *self.output.parts[k].grads):
                    gradient[...] = 0
                continue
            at, share, inputs = tails[k]
            dnarrow = self.parts[k].backward(dout * share)[0]
            kernels.product(inputs.T, dnarrow, out=dP)
            dX[at] += kernels.product(dnarrow, P.T)
        return batch_first(dX.reshape(T, N, H))
