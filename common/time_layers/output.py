"""Output layer, softmax and loss in one: what a language model spends most of its time on."""

from __future__ import annotations

import numpy

from common import native
from common.layer import Layer
from common.np import Array, np
from common.rows import add_rows
from common.time_layers.layout import batch_first, time_major
from common.time_layers.scores import make_scores
from common.time_layers.vocabulary import TimeAffine, read_targets
from common.workspace import Workspace

SAFE_SUMS = (1e-20, 1e30)  # far from 0 and from overflow, also in the products of the backward pass


class TimeOutputWithLoss(Layer):
    """The loss of ``TimeSoftmaxWithLoss`` on the scores of a ``TimeAffine``, in fewer passes.

    With S = exp(X W + b), s its row sums and w = dout / (number of targets),

        dX = (w / s) * (S W') - w * W'[ts],  dW = (w / s * X)' S - ...,  db = (w / s) S - ...

    so S (N T, V) is written once and never divided, subtracted from or copied: what belongs to a
    row is applied to the small matrix beside it, and the one-hot part is a sum of few rows.
    The usual shift by the row maximum is left out unless a sum shows that it is needed.

    ``train_flg`` says whether ``backward`` may follow: if not, S need not be kept. A model sets it,
    and lets its layers share their ``workspace``: a second backward pass then computes S again.

    Args:
        output: the layer whose W and b are used, and whose gradients are written.
        ignore_label: the target that counts for nothing.
    """

    def __init__(self, output: TimeAffine, ignore_label: int = -1) -> None:
        super().__init__()
        self.output = output
        self.ignore_label = ignore_label
        self.train_flg = True
        self.workspace = Workspace()

    def forward(self, xs: Array, ts: Array) -> Array:
        """Inputs (N, T, H) of the output layer, targets (N, T) or one-hot -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit, a target is out of range or all are ignored.
        """
        W, b = self.output.params
        H, V = W.shape
        self.expect_shape("xs", xs, "N", "T", H)
        self.cache = None
        N, T, _ = xs.shape
        ts, counts = read_targets(self, ts, (N, T, V), self.ignore_label)
        num_targets = counts.sum()
        xs = time_major(xs, W.dtype).reshape(T * N, H)
        of_targets = W.T[ts]  # (N T, H)
        log_p = (xs * of_targets).sum(axis=1) + b[ts]

        sums = None
        if isinstance(xs, numpy.ndarray):  # on a GPU it is faster than looking whether it is needed
            scores = make_scores(self.output, self.workspace, compiled=len(xs) >= native.FEW_ROWS)
            sums = scores.exponentials(xs, keep=self.train_flg)
        # Without a shift a sum may overflow, or all its terms underflow. Neither goes unseen.
        if sums is not None and SAFE_SUMS[0] < sums.min() and sums.max() < SAFE_SUMS[1]:
            log_p -= np.log(sums)
        else:
            scores = make_scores(self.output, self.workspace, compiled=False)
            sums, shifts = scores.shifted_exponentials(xs)
            log_p -= shifts + np.log(sums)
        if self.train_flg:
            self.cache = (xs, ts, counts, num_targets, of_targets, scores, sums, (T, N, H))
        return -(log_p * counts).sum(dtype="float64") / num_targets

    def backward(self, dout: float = 1) -> Array:
        """Write dW and db of the output layer; return dxs (N, T, H)."""
        dW, db = self.output.grads
        xs, ts, counts, num_targets, of_targets, scores, sums, shape = self.saved()
        weight = (counts * (dout / num_targets)).astype(dW.dtype)[:, None]  # w, 0 where ignored
        by_sum = weight / sums.astype(dW.dtype)[:, None]

        dxs = scores.products(xs, by_sum)  # writes dW and db
        dxs *= by_sum
        dxs -= weight * of_targets
        add_rows(dW.T, ts, -weight * xs)
        db -= np.bincount(ts, weights=weight[:, 0], minlength=len(db)).astype(db.dtype)
        return batch_first(dxs.reshape(shape))
