"""What a recurrent layer reads at every step, in place of what it puts out."""

from __future__ import annotations

from common.base_layer import KeptState, Layer
from common.np import Array, np


class TimeCellInputs(Layer):
    """ys[t] = [xs[t], h[t-1]]: what the cell of a recurrent layer reads, side by side.

    An output layer above it computes [x[t], h[t-1]] W + b. The state of the last step reaches the
    next window only.

    To a model this is the wrapped layer: the same parameters under the same names, the same state.

    Args:
        layer: a recurrent time layer.

    Attributes:
        dstate: the gradients of the states from which the window began, after ``backward``.
    """

    def __init__(self, layer: KeptState) -> None:
        super().__init__()
        self.layer = layer
        self.params, self.grads = layer.params, layer.grads
        self.param_names, self.state_names = layer.param_names, layer.state_names
        self.dstate: tuple[Array, ...] | None = None

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        """Whether the wrapped layer carries its state from window to window."""
        return self.layer.stateful

    @property
    def kind(self) -> str:
        """What a weight file calls the wrapped layer."""
        return self.layer.kind

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
        dh, *others = self.layer.dstate or ()
        self.dstate = (dh + dh_prevs[:, 0], *others)
        return dxs

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.layer.reset_state()

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the layer's states; None where the next window begins from zeros."""
        return self.layer.get_state()

    def set_state(self, *state: Array) -> None:
        """Begin the next window from the layer's states, each (N, its width)."""
        self.layer.set_state(*state)
