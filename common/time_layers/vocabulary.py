"""From token ids to vectors and back: embedding, output layer, losses."""

from __future__ import annotations

from typing import Any

import numpy

from common.layer import Layer, check_ratio
from common.layers import SigmoidWithLoss
from common.np import Array, np
from common.products import affine, product
from common.rows import add_rows
from common.time_layers.layout import batch_first, time_major


class TimeEmbedding(Layer):
    """Row ``xs[n, t]`` of the table for every token.

    While training, embedding dropout zeroes the rows of whole words with probability
    ``dropout_ratio``, wherever in the window they occur, and scales up the rest (Gal and Ghahramani
    2016; Merity et al. 2018, section 4.3).

    Args:
        W: one row for each id (V, D).
        dropout_ratio: probability that a word is dropped, in [0, 1).
        rng: where the words to drop come from; a fresh generator if None and words are dropped.

    ``accumulate`` is set by a model that ties ``W`` to an output layer: the gradient array then
    holds the output layer's share already, and ``backward`` adds to it. ``train_flg`` says whether
    ``forward`` drops; a model sets it.

    Raises:
        ValueError: for a ratio outside [0, 1).
    """

    param_names = ("W",)

    def __init__(
        self,
        W: Array,
        dropout_ratio: float = 0.0,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        super().__init__(W)
        self.expect_shape("W", W, "V", "D")
        self.dropout_ratio = check_ratio(type(self).__name__, dropout_ratio)
        if rng is None and dropout_ratio:
            rng = numpy.random.default_rng()
        self.rng: Any = rng  # None where nothing is drawn
        self.train_flg = True
        self.accumulate = False

    def forward(self, xs: Array) -> Array:
        """Ids (N, T) -> (N, T, D)."""
        (W,) = self.params
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T")
        self.expect_ids("xs", xs, len(W))
        ids = time_major(xs)
        ys = W[ids]
        if not self.dropout_ratio:
            self.cache = (ids, None)
        elif not self.train_flg:
            self.cache = None
        else:
            # V draws take less time than finding out which words occur.
            drawn = self.rng.random(len(W), dtype=numpy.float32)
            mask = np.asarray(drawn >= self.dropout_ratio).astype(W.dtype)
            mask *= 1 / (1 - self.dropout_ratio)
            ys *= mask[ids][..., None]
            self.cache = (ids, mask)
        return batch_first(ys)

    def backward(self, dys: Array) -> None:
        """(N, T, D) -> nothing, since ids have no gradient; writes dW."""
        ids, mask = self.saved()
        (dW,) = self.grads
        T, N = ids.shape
        self.expect_shape("dys", dys, N, T, dW.shape[1])
        ids, rows = ids.reshape(-1), time_major(dys, dW.dtype).reshape(T * N, -1)
        if mask is not None:
            rows = rows * mask[ids][:, None]
        if not self.accumulate:
            dW[...] = 0
        add_rows(dW, ids, rows)


class TimeAffine(Layer):
    """ys = xs W + b at every step.

    Args:
        W: (H, V); the transposed view of an embedding (V, H) where the two are tied.
        b: (V,).
    """

    param_names = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.expect_shape("W", W, "H", "V")
        self.expect_shape("b", b, W.shape[1])

    def forward(self, xs: Array) -> Array:
        """(N, T, H) -> (N, T, V)."""
        W, b = self.params
        self.expect_shape("xs", xs, "N", "T", len(W))
        xs = time_major(xs, W.dtype)
        T, N, _ = xs.shape
        self.cache = (xs,)
        ys = np.empty((T, N, len(b)), dtype=W.dtype)
        affine(xs, W, b, out=ys)
        return batch_first(ys)

    def backward(self, dys: Array) -> Array:
        """(N, T, V) -> dxs (N, T, H)."""
        W, _ = self.params
        dW, db = self.grads
        (xs,) = self.saved()
        T, N, H = xs.shape
        self.expect_shape("dys", dys, N, T, W.shape[1])
        dys = time_major(dys, W.dtype).reshape(T * N, -1)
        product(xs.reshape(T * N, H).T, dys, out=dW)
        db[...] = dys.sum(axis=0)
        return batch_first(product(dys, W.T).reshape(T, N, H))


def read_targets(
    layer: Layer, ts: Array, shape: tuple[int, int, int], ignore_label: int
) -> tuple[Array, Array]:
    """Targets (N, T), or one-hot (N, T, V), as class ids (T N,), and which of them count.

    Raises:
        ValueError: in the layer's name, where the shape does not fit (N, T, V), a target is out of
            range or all are ignored.
    """
    N, T, V = shape
    ts = np.asarray(ts)
    if ts.ndim == 3:
        layer.expect_shape("ts", ts, N, T, V)
        ts = ts.argmax(axis=2)
    layer.expect_shape("ts", ts, N, T)
    ts = time_major(ts).reshape(-1)
    counts = ts != ignore_label
    ts = np.where(counts, ts, 0)
    layer.expect_ids("ts", ts, V)
    if isinstance(counts, numpy.ndarray) and not counts.any():
        raise ValueError(
            f"{type(layer).__name__}: all {ts.size} targets are ignore_label={ignore_label}"
        )
    return ts, counts


class TimeSoftmaxWithLoss(Layer):
    """Mean of -log softmax(xs)[t] over all targets but those equal to ``ignore_label``.

    Args:
        ignore_label: the target that counts for nothing.
    """

    def __init__(self, ignore_label: int = -1) -> None:
        super().__init__()
        self.ignore_label = ignore_label

    def forward(self, xs: Array, ts: Array) -> Array:
        """Scores (N, T, V) and targets (N, T), or one-hot (N, T, V) -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit, a target is out of range or all are ignored.
        """
        self.expect_shape("xs", xs, "N", "T", "V")
        N, T, V = xs.shape
        ts, counts = read_targets(self, ts, (N, T, V), self.ignore_label)
        num_targets = counts.sum()
        rows = np.arange(T * N)
        xs = time_major(xs).reshape(T * N, V)
        ys = xs - xs.max(axis=1, keepdims=True)
        log_p = ys[rows, ts]
        np.exp(ys, out=ys)
        sums = ys.sum(axis=1, keepdims=True)
        log_p -= np.log(sums[:, 0])
        ys /= sums
        self.cache = (ys, ts, counts, num_targets, (T, N, V))
        return -(log_p * counts).sum(dtype="float64") / num_targets

    def backward(self, dout: float = 1) -> Array:
        """dxs (N, T, V) = (softmax(xs) - onehot(ts)) * dout / (number of targets that count)."""
        ys, ts, counts, num_targets, shape = self.saved()
        scale = counts.astype(ys.dtype) * (dout / num_targets).astype(ys.dtype)
        dxs = ys * scale[:, None]
        dxs[np.arange(len(ts)), ts] -= scale
        return batch_first(dxs.reshape(shape))


class TimeSigmoidWithLoss(SigmoidWithLoss):
    """Mean binary cross-entropy of scores (N, T) against targets (N, T) of 0 and 1."""

    def forward(self, xs: Array, ts: Array) -> Array:
        """(N, T), (N, T) -> the loss, a scalar."""
        self.expect_shape("xs", xs, "N", "T")
        return super().forward(xs, ts)
