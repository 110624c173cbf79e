"""Two recurrent layers, one in each direction."""

from __future__ import annotations

from common import kernels
from common.base_layer import KeptState, Layer
from common.np import Array, np
from common.time_layers.lstm import TimeLSTM


class TimeBidirectional(Layer):
    """One layer reads from the left, one from the right; at each step their outputs side by side.

    Schuster and Paliwal (1997).

    Args:
        left: the recurrent time layer that reads forwards.
        right: another of the same kind and size, which reads backwards.
    """

    def __init__(self, left: KeptState, right: KeptState) -> None:
        super().__init__()
        self.left, self.right = left, right
        kernels.share_workspace([left, right])
        self.stateful = left.stateful
        self.params = left.params + right.params
        self.grads = left.grads + right.grads
        names = left.param_names or tuple(map(str, range(len(left.params))))
        self.param_names = tuple(f"{name}{k}" for k in (1, 2) for name in names)
        self.recurrent_weights = tuple(f"{n}{k}" for k in (1, 2) for n in left.recurrent_weights)
        self.state_names = left.state_names + right.state_names

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, 2H)."""
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", "D")
        self.left.train_flg = self.right.train_flg = self.train_flg
        from_left = self.left.forward(xs)
        from_right = self.right.forward(xs[:, ::-1])[:, ::-1]
        hs = np.concatenate([from_left, from_right], axis=2)
        self.cache = (hs.shape,)
        return hs

    def backward(self, dhs: Array, *dstates: Array | None) -> Array:
        """Go back through both.

        Args:
            dhs: (N, T, 2H).
            dstates: gradients of the last states but the first, of the left, then of the right;
                of two LSTMs the c of each.

        Returns:
            dxs (N, T, D).
        """
        (shape,) = self.saved()
        self.expect_shape("dhs", dhs, *shape)
        H, k = shape[2] // 2, len(self.left.state_names) - 1
        dxs = self.left.backward(dhs[:, :, :H], *dstates[:k])
        return dxs + self.right.backward(dhs[:, ::-1, H:], *dstates[k:])[:, ::-1]

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.left.reset_state()
        self.right.reset_state()

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the states from the left, then from the right; None before the first window."""
        left, right = self.left.get_state(), self.right.get_state()
        return None if left is None or right is None else left + right

    def set_state(self, *state: Array) -> None:
        """Begin the next window from what ``get_state`` returned, each (N, H).

        Raises:
            TypeError: for another number of arrays.
        """
        k = len(self.left.state_names)
        if len(state) != 2 * k:
            raise TypeError(
                f"{type(self).__name__}.set_state: expected {2 * k} arrays, got {len(state)}"
            )
        self.left.set_state(*state[:k])
        self.right.set_state(*state[k:])


class TimeBiLSTM(TimeBidirectional):
    """Two LSTMs, one from the left and one from the right.

    Args:
        Wx1, Wh1, b1: the LSTM that reads forwards.
        Wx2, Wh2, b2: the LSTM that reads backwards.
        stateful: carry both states from window to window.
    """

    def __init__(
        self,
        Wx1: Array,
        Wh1: Array,
        b1: Array,
        Wx2: Array,
        Wh2: Array,
        b2: Array,
        stateful: bool = False,
    ) -> None:
        left, right = TimeLSTM(Wx1, Wh1, b1, stateful), TimeLSTM(Wx2, Wh2, b2, stateful)
        super().__init__(left, right)
