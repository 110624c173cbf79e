"""Dropout over T steps."""

from __future__ import annotations

import numpy

from common.base_layer import Layer, batch_first, check_ratio
from common.np import Array, np


class TimeDropout(Layer):
    """While training, zeroes each value with probability ``dropout_ratio``, scales up the rest.

    Args:
        dropout_ratio: probability of dropping, in [0, 1).
        variational: one mask for all steps of a window (Gal and Ghahramani 2016), not one each.
        rng: where the masks come from; a fresh generator if None.

    ``train_flg`` says whether ``forward`` drops; a model sets it.
    """

    def __init__(
        self,
        dropout_ratio: float = 0.5,
        variational: bool = False,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dropout_ratio = check_ratio(type(self).__name__, dropout_ratio)
        self.variational = variational
        self.rng = rng if rng is not None else numpy.random.default_rng()

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, D)."""
        if not self.train_flg:
            self.cache = None
            return xs
        self.expect_shape("xs", xs, "N", "T", "D")
        N, T, D = xs.shape
        drawn = self.rng.random((1 if self.variational else T, N, D), dtype=numpy.float32)
        kept = batch_first(np.asarray(drawn >= self.dropout_ratio))
        self.cache = (kept, xs.shape)
        return self._scaled(xs, kept)

    def backward(self, dys: Array) -> Array:
        """dxs: zero where the forward pass dropped, the rest scaled up."""
        kept, shape = self.saved()
        self.expect_shape("dys", dys, *shape)
        return self._scaled(dys, kept)

    def _scaled(self, x: Array, kept: Array) -> Array:
        y = x * kept  # a byte each
        y *= 1 / (1 - self.dropout_ratio)
        return y
