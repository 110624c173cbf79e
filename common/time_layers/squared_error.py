"""Squared error over T steps."""

from __future__ import annotations

from common.layer import Layer
from common.np import Array


class TimeMeanSquaredError(Layer):
    """Mean of (xs - ts)² over all N T V elements."""

    def forward(self, xs: Array, ts: Array) -> Array:
        """Outputs and targets, both (N, T, V) -> the loss, a scalar."""
        self.expect_shape("xs", xs, "N", "T", "V")
        self.expect_shape("ts", ts, *xs.shape)
        errors = xs - ts
        self.cache = (errors,)
        return (errors**2).mean()

    def backward(self, dout: float = 1) -> Array:
        """dxs (N, T, V) = 2 (xs - ts) * dout / size."""
        (errors,) = self.saved()
        return errors * (2 * dout / errors.size)
