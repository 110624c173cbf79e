"""Dropout over T steps."""

from __future__ import annotations

import numpy

from common.base_layer import Layer, check_ratio
from common.kernels.passes import drop
from common.masks import Masks
from common.np import Array


class TimeDropout(Layer):
    """While training, zeroes each value with probability ``dropout_ratio``, scales up the rest.

    Args:
        dropout_ratio: probability of dropping, in [0, 1), rounded to 16 bits.
        variational: one mask for all steps of a window (Gal and Ghahramani 2016), not one each.
        rng: gives the masks their seed (``common.masks``); a fresh generator if None.

    ``train_flg`` says whether ``forward`` drops; a model sets it.

    Raises:
        ValueError: for a ratio outside [0, 1).
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
        self.masks = Masks(rng)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, D)."""
        if not self.train_flg:
            self.cache = None
            return xs
        self.expect_shape("xs", xs, "N", "T", "D")
        N, T, D = xs.shape
        steps = 1 if self.variational else T
        kept, scale = self.masks.of_streams(self.dropout_ratio, N, steps, D)
        self.cache = (kept, scale, xs.shape)
        return drop(xs, kept, scale)

    def backward(self, dout: Array) -> Array:
        """dxs: zero where the forward pass dropped, the rest scaled up."""
        kept, scale, shape = self.saved()
        self.expect_shape("dout", dout, *shape)
        return drop(dout, kept, scale)
