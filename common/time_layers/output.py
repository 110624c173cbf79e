"""Output layer, softmax and loss in one: what a language model spends most of its time on."""

from __future__ import annotations

import numpy

from common import native
from common.layer import Layer
from common.np import Array, np
from common.parallel import over_rows
from common.time_layers.layout import batch_first, time_major
from common.time_layers.vocabulary import TimeAffine, read_targets, row_sums_by_id

SAFE_SUMS = (1e-30, 1e38)  # all terms that matter are then far from 0 and from overflow


class TimeOutputWithLoss(Layer):
    """The loss of ``TimeSoftmaxWithLoss`` on the scores of a ``TimeAffine``, in fewer passes.

    With S = exp(X W + b), s its row sums and w = dout / (number of targets),

        dX = (w / s) * (S W') - w * W'[ts],  dW = (w / s * X)' S - ...,  db = (w / s) S - ...

    so S (N T, V) is written once and never divided, subtracted from or copied: what belongs to a
    row is applied to the small matrix beside it, and the one-hot part is a sum of few rows.
    The usual shift by the row maximum is left out unless a sum shows that it is needed.

    Args:
        output: the layer whose W and b are used, and whose gradients are written.
        ignore_label: the target that counts for nothing.
    """

    def __init__(self, output: TimeAffine, ignore_label: int = -1) -> None:
        super().__init__()
        self.output = output
        self.ignore_label = ignore_label
        self._scores: Array | None = None

    def forward(self, xs: Array, ts: Array) -> Array:
        """Inputs (N, T, H) of the output layer, targets (N, T) or one-hot -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit, a target is out of range or all are ignored.
        """
        W, _ = self.output.params
        H, V = W.shape
        self.expect_shape("xs", xs, "N", "T", H)
        N, T, _ = xs.shape
        ts, counts = read_targets(self, ts, (N, T, V), self.ignore_label)
        num_targets = counts.sum()
        xs = time_major(xs, W.dtype).reshape(T * N, H)
        S, sums, log_p = self._exponentials(xs, ts, shift=False)
        # Without a shift a sum may overflow, or all its terms underflow. Neither goes unseen.
        if not (sums.min() > SAFE_SUMS[0] and sums.max() < SAFE_SUMS[1]):
            S, sums, log_p = self._exponentials(xs, ts, shift=True)
        self.cache = (xs, ts, counts, num_targets, S, sums, (T, N, H))
        return -(log_p * counts).sum(dtype="float64") / num_targets

    def _exponentials(self, xs: Array, ts: Array, shift: bool) -> tuple[Array, Array, Array]:
        """S = exp(xs W + b), shifted by the row maximum or not; row sums; log p of targets."""
        W, b = self.output.params
        R, V = len(xs), W.shape[1]
        if self._scores is None or len(self._scores) < R or self._scores.dtype != W.dtype:
            self._scores = np.empty((R, V), dtype=W.dtype)  # kept: 28 MB are not free to make
        S = self._scores[:R]
        sums = np.empty(R, dtype=W.dtype)
        picked = np.empty(R, dtype=W.dtype)
        np.matmul(xs, W, out=S)
        if shift:
            S += b
            S -= S.max(axis=1, keepdims=True)
            b = np.zeros_like(b)
        kernels = native.library(S, b)

        def work(rows: slice) -> None:
            block = S[rows]
            picked[rows] = block[np.arange(len(block)), ts[rows]]
            if kernels is not None:
                pointers = (native.address(a) for a in (block, b, sums[rows]))
                kernels.exp_rows(*pointers, len(block), V)
            else:
                block += b
                with numpy.errstate(over="ignore"):  # looked for in the sums
                    np.exp(block, out=block)
                    block.sum(axis=1, out=sums[rows])

        over_rows(work, S)
        return S, sums, picked + b[ts] - np.log(sums)

    def backward(self, dout: float = 1) -> Array:
        """Write dW and db of the output layer; return dxs (N, T, H)."""
        W, b = self.output.params
        dW, db = self.output.grads
        xs, ts, counts, num_targets, S, sums, shape = self.saved()
        weight = (counts * (dout / num_targets)).astype(W.dtype)[:, None]  # w, 0 where ignored
        by_sum = weight / sums[:, None]
        one_hot_xs = weight * xs

        np.matmul((by_sum * xs).T, S, out=dW)
        ids, rows = row_sums_by_id(ts, one_hot_xs)
        dW.T[ids] -= rows
        db[...] = by_sum[:, 0] @ S
        db -= np.bincount(ts, weights=weight[:, 0], minlength=len(b))

        dxs = S @ W.T
        dxs *= by_sum
        dxs -= weight * W.T[ts]
        return batch_first(dxs.reshape(shape))
