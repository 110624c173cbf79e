"""The output layer and its loss on a sample of the classes: training at a fraction of the cost.

R = T N rows, H inputs, V classes, K of them drawn: X (R, H), W (H, V), b (V,), S (R, K).
"""

from __future__ import annotations

import numpy

from common import kernels
from common.base_layer import Layer, batch_first, check_sizes
from common.kernels.passes import add_rows, subtract_at
from common.masks import Masks
from common.np import Array, Scalar, np, to_cpu
from common.time_layers.output import TimeOutputWithLoss

__all__ = ["TimeSampledOutputWithLoss", "inclusion_probabilities"]


class TimeSampledOutputWithLoss(TimeOutputWithLoss):
    """``TimeOutputWithLoss`` whose softmax, while training, is summed over a sample of the classes.

    In each pass class c is drawn with its own probability p[c], independently of the others, once
    for the whole window. With s the scores x W + b and t the target of a row,

        Z = exp(s[t]) + sum of exp(s[c]) / p[c] over the classes c != t drawn,  loss = log Z - s[t]

    Z is the sum of the whole softmax without bias: every term of it is divided by the probability
    with which it is there (Horvitz and Thompson 1952), and that of the target always is. The
    gradient is that of this loss, so scores of classes that were not drawn have none. Importance
    sampling of the softmax: Bengio and Senécal (2008); Jean et al. (2015), section 3. The logarithm
    is concave, so in the mean this loss is a little below that of the whole softmax.

    An evaluation, and training while ``sampling`` is off, take the whole softmax.

    Args:
        output: the layer whose W and b are used, and whose gradients are written.
        num_classes: K, how many are drawn in the mean; V or more for all.
        rng: gives the draws their seed (``common.masks``).
        ignore_label: the target that counts for nothing.

    Attributes:
        inclusion: p (V,), in float64 on the host; equal for all until :meth:`set_counts`.
        sampling: whether training samples; what needs the whole gradient turns it off.

    Raises:
        ValueError: for fewer than one class.
    """

    def __init__(
        self,
        output: Layer,
        num_classes: int,
        rng: numpy.random.Generator | int | None = None,
        ignore_label: int = -1,
    ) -> None:
        super().__init__(output, ignore_label)
        check_sizes(type(self).__name__, num_classes=num_classes)
        self.num_classes = num_classes
        self.inclusion = inclusion_probabilities(numpy.ones(len(output.params[1])), num_classes)
        self.masks = Masks(rng)
        self.sampling = True
        self._sampled = False  # whether the last forward pass was

    def set_counts(self, counts: Array) -> None:
        """Draw class c with a probability proportional to the square root of its count plus one.

        Where a class is likely in few contexts, the root mean square of its probability grows like
        the square root of its frequency; an unbiased sum is best drawn in that proportion.

        Args:
            counts: how often each class is a target in the training text (V,).

        Raises:
            ValueError: for another shape, or a count below 0.
        """
        counts = to_cpu(counts).astype("float64")
        V = len(self.inclusion)
        if counts.shape != (V,) or not counts.min() >= 0:
            raise ValueError(
                f"{type(self).__name__}.set_counts: expected {V} counts of 0 or more, "
                f"got {counts.shape}, the least {counts.min()}"
            )
        self.inclusion = inclusion_probabilities(numpy.sqrt(counts + 1), self.num_classes)

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """Inputs (N, T, H) of the output layer, targets (N, T) or one-hot -> the loss, a scalar.

        Raises:
            ValueError: where shapes do not fit or a target is out of range.
        """
        self._sampled = self.sampling and self.train_flg
        if not self._sampled:
            return super().forward(xs, ts)
        W, b = self.output.params
        shape = xs.shape
        xs, ts, counts, of_targets, target_scores = self.begin(xs, ts)
        num_targets = np.maximum(counts.sum(), 1)
        drawn = self.masks.drawn(self.inclusion)
        log_p = np.asarray(numpy.log(self.inclusion[drawn]).astype(W.dtype))
        classes = np.asarray(drawn)
        W_drawn = W.T[classes]  # (K, H)
        S = kernels.product(xs, W_drawn.T, bias=b[classes] - log_p)
        # A row's own target is counted once, apart.
        rows, at = np.arange(len(ts)), np.minimum(np.searchsorted(classes, ts), len(drawn) - 1)
        S[rows, at] = np.where(classes[at] == ts, -np.inf, S[rows, at])
        shifts = np.maximum(S.max(axis=1), target_scores)
        _exponentials(S, shifts)
        of_target = np.exp(target_scores - shifts)
        sums = S.sum(axis=1) + of_target
        log_p_of_targets = target_scores - shifts - np.log(sums)
        tensors = (xs, of_targets, classes, W_drawn, S, sums, of_target)
        self.cache = (ts, counts, num_targets, tensors, shape)
        loss = np.maximum(-log_p_of_targets, 0)  # rounding alone brings it below 0
        return np.where(counts, loss, 0).sum(dtype="float64") / num_targets

    def backward(self, dout: float = 1) -> Array:
        """Write dW and db of the output layer; return dxs (N, T, H)."""
        if not self._sampled:
            return super().backward(dout)
        dW, db = self.output.grads
        ts, counts, num_targets, tensors, (N, T, H) = self.saved()
        xs, of_targets, classes, W_drawn, S, sums, of_target = tensors
        weight = (counts * (dout / num_targets)).astype(dW.dtype)  # 0 where ignored
        by_sum = (weight / sums)[:, None]
        dscores = (weight * (of_target / sums - 1))[:, None]  # of the targets (R, 1)

        dxs = kernels.product(S, W_drawn)
        dxs *= by_sum
        dxs += dscores * of_targets
        dW[...] = 0
        add_rows(dW.T, classes, kernels.product(S.T, by_sum * xs))
        add_rows(dW.T, ts, dscores * xs)
        db[...] = 0
        db[classes] = kernels.product(by_sum.T, S)[0]
        subtract_at(db, ts, -dscores[:, 0])
        return batch_first(dxs.reshape(T, N, H))


def inclusion_probabilities(weights: numpy.ndarray, num_classes: float) -> numpy.ndarray:
    """Probabilities (V,) proportional to ``weights`` (V,), cut at 1, with the sum ``num_classes``.

    The class of the largest weight has probability 1, so that no sample is empty. Where there are
    no more than ``num_classes`` of positive weight, all are 1.
    """
    V, p = len(weights), numpy.zeros(len(weights))
    certain = numpy.zeros(V, dtype=bool)
    certain[weights.argmax()] = True
    while True:
        p[certain] = 1
        others = weights[~certain].sum()
        rest = max(num_classes - certain.sum(), 0)
        p[~certain] = weights[~certain] * (rest / others) if others > 0 else 1
        if not (p > 1).any():
            return p
        certain |= p >= 1


def _exponentials(S: Array, shifts: Array) -> None:
    """S := exp(S - shifts), row by row, in place."""

    def work(rows: slice) -> None:
        block = S[rows]
        block -= shifts[rows, None]
        np.exp(block, out=block)

    kernels.over_rows(work, S)
