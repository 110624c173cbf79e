"""Dropout over T steps."""

from __future__ import annotations

import numpy

from common.layer import Layer, check_ratio
from common.np import Array, np
from common.time_layers.layout import batch_first


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
        self.train_flg = True

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, D)."""
        if not self.train_flg:
            self.cache = None
            return xs
        self.expect_shape("xs", xs, "N", "T", "D")
        N, T, D = xs.shape
        drawn = self.rng.random((1 if self.variational else T, N, D), dtype=numpy.float32)
        mask = batch_first(np.asarray(drawn >= self.dropout_ratio)).astype(xs.dtype)
        mask *= 1 / (1 - self.dropout_ratio)
        self.cache = (mask, xs.shape)
        return xs * mask

    def backward(self, dys: Array) -> Array:
        """dxs = dys * mask."""
        mask, shape = self.saved()
        self.expect_shape("dys", dys, *shape)
        return dys * mask
