"""From token ids to vectors."""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import Layer, batch_first, check_ratio, time_major
from common.kernels.passes import add_rows, take_rows
from common.masks import Masks
from common.np import Array, array_of
from common.row_gradient import RowGradient

__all__ = ["MANY_ROWS", "TimeEmbedding"]

MANY_ROWS = 1 << 14  # of a table: with more, those that a window reads are few


class TimeEmbedding(Layer):
    """Row ``xs[n, t]`` of the table for every token.

    While training, embedding dropout zeroes the rows of whole words with probability
    ``dropout_ratio``, wherever in the window they occur, and scales up the rest (Gal and Ghahramani
    2016; Merity et al. 2018, section 4.3).

    Args:
        W: one row for each id (V, D).
        dropout_ratio: probability that a word is dropped, in [0, 1), rounded to 16 bits.
        rng: gives the masks their seed (``common.masks``); a fresh generator if None. Left alone
            where nothing is dropped.
        sparse: whether the gradient is a ``RowGradient``, the rows that were read, in place of an
            array (V, D); None for whether there are more than MANY_ROWS rows. A weight that is tied
            to an output layer wants False.

    ``accumulate`` is set by a model that ties ``W`` to an output layer: the gradient array then
    holds the output layer's share already, and ``backward`` adds to it. ``train_flg`` says whether
    ``forward`` drops; a model sets it. ``add_rows`` adds the gradients of the tokens' rows into dW;
    where the streams are spread over processes it adds those of all.

    Raises:
        ValueError: for a ratio outside [0, 1).
    """

    param_names = ("W",)
    add_rows = staticmethod(add_rows)

    def __init__(
        self,
        W: Array,
        dropout_ratio: float = 0.0,
        rng: numpy.random.Generator | None = None,
        sparse: bool | None = False,
    ) -> None:
        if len(W) > MANY_ROWS if sparse is None else sparse:
            self.gradient_like = RowGradient
        super().__init__(W)
        self.expect_shape("W", W, "V", "D")
        self.dropout_ratio = check_ratio(type(self).__name__, dropout_ratio)
        self.masks: Any = Masks(rng) if dropout_ratio else None  # None where nothing is drawn
        self.accumulate = False

    def forward(self, xs: Array) -> Array:
        """Ids (N, T) -> (N, T, D)."""
        (W,) = self.params
        xs = array_of(xs)
        self.expect_shape("xs", xs, "N", "T")
        self.expect_ids("xs", xs, len(W))
        ids = xs.T if xs.size == 1 else time_major(xs)  # a single one can stay on the host
        ys = take_rows(W, ids)
        mask = None
        if self.dropout_ratio and self.train_flg:
            # Drawing for all V words takes less time than finding those that occur.
            (kept,), scale = self.masks.shared(self.dropout_ratio, (len(W),))
            mask = kept.astype(W.dtype) * scale
            ys *= mask[ids][..., None]
        self.cache = (ids, mask) if self.train_flg or not self.dropout_ratio else None
        return batch_first(ys)

    def backward(self, dout: Array) -> None:
        """(N, T, D) -> nothing, since ids have no gradient; writes dW."""
        ids, mask = self.saved()
        (dW,) = self.grads
        self.expect_shape("dout", dout, *ids.T.shape, dW.shape[1])
        ids, rows = ids.reshape(-1), time_major(dout, dW.dtype).reshape(ids.size, -1)
        if mask is not None:
            rows = rows * mask[ids][:, None]
        if not self.accumulate:
            dW[...] = 0
        self.add_rows(dW, ids, rows)
