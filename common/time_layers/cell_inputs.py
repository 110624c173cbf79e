"""What a recurrent layer reads at every step, in place of what it puts out."""

from __future__ import annotations

from common.np import Array, np
from common.time_layers.wrapper import TimeWrapper


class TimeCellInputs(TimeWrapper):
    """ys[t] = [xs[t], h[t-1]]: what the cell of a recurrent layer reads, side by side.

    An output layer above it computes [x[t], h[t-1]] W + b. The state of the last step reaches the
    next window only.

    Args:
        layer: a recurrent time layer.
    """

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, D + H)."""
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", "D")
        self.cache = None
        self.layer.train_flg = self.train_flg
        h_first, *_ = self.layer.first_states(len(xs))
        hs = self.layer.forward(xs)
        h_prevs = np.concatenate([h_first[:, None], hs[:, :-1]], axis=1)
        self.cache = (*xs.shape, hs.shape[2])
        return np.concatenate([xs, h_prevs], axis=2)

    def backward(self, dys: Array) -> Array:
        """(N, T, D + H) -> dxs (N, T, D). The gradient of h[t-1] goes to step t - 1."""
        N, T, D, H = self.saved()
        self.expect_shape("dys", dys, N, T, D + H)
        dxs, dh_prevs = dys[:, :, :D], dys[:, :, D:]
        dhs = np.zeros_like(dh_prevs)
        dhs[:, :-1] = dh_prevs[:, 1:]
        dxs = dxs + self.layer.backward(dhs)
        dh, *others = self.dstate
        self.dstate = (dh + dh_prevs[:, 0], *others)
        return dxs
