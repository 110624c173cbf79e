"""DropConnect on the recurrent weights of a recurrent layer."""

from __future__ import annotations

import numpy

from common.base_layer import Layer, check_ratio
from common.kernels.passes import drop
from common.masks import Masks
from common.np import Array, np
from common.time_layers.wrapper import TimeWrapper


class TimeWeightDrop(TimeWrapper):
    """While training, a recurrent layer whose ``Wh`` has elements dropped, anew for every window.

    Each element is zero for all N sequences and all T steps with probability ``dropout_ratio``;
    the rest are scaled up. Wan et al. (2013); on the recurrent weight Merity et al. (2018),
    section 4.1. What is dropped are the layer's ``recurrent_weights``; of a layer that names none,
    such as a minGRU, every matrix.

    ``params`` holds the whole weights, which an optimizer updates and a file keeps.

    Args:
        layer: a recurrent time layer.
        dropout_ratio: probability of dropping, in [0, 1), rounded to 16 bits.
        rng: gives the masks their seed (``common.masks``); a fresh generator if None.

    Raises:
        TypeError: for a layer of another kind, or one without a matrix.
        ValueError: for a ratio outside [0, 1).
    """

    def __init__(
        self,
        layer: Layer,
        dropout_ratio: float = 0.5,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        super().__init__(layer)
        who = type(self).__name__
        self.dropout_ratio = check_ratio(who, dropout_ratio)
        self.masks = Masks(rng)
        wanted = layer.recurrent_weights or ("Wh",)
        chosen = [k for k, name in enumerate(layer.param_names) if name in wanted]
        self._chosen = chosen or [k for k, p in enumerate(layer.params) if p.ndim == 2]
        if not self._chosen:
            raise TypeError(f"{who}: {type(layer).__name__} has no matrix to drop elements of")
        self._dropped = [np.empty_like(layer.params[k]) for k in self._chosen]
        # Where the layer, and layers inside it, look each of those weights up.
        self._places = [
            (part.params, at, j)
            for part in layer.sublayers()
            for at, param in enumerate(part.params)
            for j, k in enumerate(self._chosen)
            if param is layer.params[k]
        ]

    def use_whole_weights(self) -> None:
        """Let the wrapped layer compute with nothing dropped."""
        self._give([self.params[k] for k in self._chosen])

    def _give(self, weights: list[Array]) -> None:
        for params, at, j in self._places:
            params[at] = weights[j]

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", "D")
        self.cache = None
        self.layer.train_flg = self.train_flg
        if not self.train_flg:
            self.use_whole_weights()
            return self.layer.forward(xs)
        shapes = [dropped.shape for dropped in self._dropped]
        masks, scale = self.masks.shared(self.dropout_ratio, *shapes)
        for k, kept, dropped in zip(self._chosen, masks, self._dropped, strict=True):
            drop(self.params[k], kept, scale, out=dropped)
        self._give(self._dropped)
        hs = self.layer.forward(xs)
        self.cache = (masks, scale, hs.shape)
        return hs

    def backward(self, dhs: Array, *dstates: Array | None) -> Array:
        """(N, T, H), of an LSTM also (N, H) for the last c -> dxs (N, T, D)."""
        masks, scale, shape = self.saved()
        self.expect_shape("dhs", dhs, *shape)
        dxs = self.layer.backward(dhs, *dstates)
        for k, kept in zip(self._chosen, masks, strict=True):
            dW = self.grads[k]  # the wrapped layer writes it anew each time
            drop(dW, kept, scale, out=dW)
        return dxs
