"""Losses of numbers over T steps; the loss of classes stands in ``output``."""

from __future__ import annotations

from common.base_layer import Layer
from common.layers import SigmoidWithLoss
from common.np import Array, Scalar, np


class TimeMeanSquaredError(Layer):
    """Mean of (xs - ts)² over all N T V elements."""

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """Outputs and targets, both (N, T, V) -> the loss, a scalar."""
        self.expect_shape("xs", xs, "N", "T", "V")
        self.expect_shape("ts", ts, *xs.shape)
        errors = xs - np.asarray(ts)
        self.cache = (errors,)
        return np.square(errors, dtype="float64").mean()

    def backward(self, dout: float = 1) -> Array:
        """dxs (N, T, V) = 2 (xs - ts) * dout / size."""
        (errors,) = self.saved()
        return errors * (2 * dout / errors.size)


class TimeSigmoidWithLoss(SigmoidWithLoss):
    """Mean binary cross-entropy of scores (N, T) against targets (N, T) of 0 and 1."""

    def forward(self, xs: Array, ts: Array) -> Scalar:
        """(N, T), (N, T) -> the loss, a scalar."""
        self.expect_shape("xs", xs, "N", "T")
        return super().forward(xs, ts)
