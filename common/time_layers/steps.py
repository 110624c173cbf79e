"""From one vector to T steps, and from T steps to one vector."""

from __future__ import annotations

from common.base_layer import Layer, check_sizes
from common.np import Array, np


class TimeFirstStep(Layer):
    """Puts one vector at the first of T steps, and zeros at every later step.

    Args:
        num_steps: T.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        check_sizes(type(self).__name__, num_steps=num_steps)
        self.num_steps = num_steps

    def forward(self, x: Array) -> Array:
        """(N, D) -> (N, T, D)."""
        self.expect_shape("x", x, "N", "D")
        N, D = x.shape
        ys = np.zeros((N, self.num_steps, D), dtype=x.dtype)
        ys[:, 0] = x
        self.cache = (ys.shape,)
        return ys

    def backward(self, dys: Array) -> Array:
        """(N, T, D) -> dx (N, D)."""
        (shape,) = self.saved()
        self.expect_shape("dys", dys, *shape)
        return dys[:, 0]


class TimeLastStep(Layer):
    """Keeps the last of T steps."""

    def forward(self, xs: Array) -> Array:
        """(N, T, H) -> (N, H)."""
        self.expect_shape("xs", xs, "N", "T", "H")
        self.cache = (xs.shape,)
        return xs[:, -1]

    def backward(self, dy: Array) -> Array:
        """(N, H) -> dxs (N, T, H), zero at every step but the last."""
        ((N, T, H),) = self.saved()
        self.expect_shape("dy", dy, N, H)
        dxs = np.zeros((N, T, H), dtype=dy.dtype)
        dxs[:, -1] = dy
        return dxs
