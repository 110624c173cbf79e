"""The plain RNN over T steps; its cell is ``common.layers.RNN``."""

from __future__ import annotations

from common import kernels
from common.base_layer import TimeRecurrent, batch_first, read_only
from common.layers import check_nonlinearity
from common.np import Array, np


class TimeRNN(TimeRecurrent):
    """h[t] = tanh(x[t] Wx + h[t-1] Wh + b) over T steps.  Elman (1990).

    Args:
        Wx: (D, H).
        Wh: (H, H).
        b: (H,).
        stateful: carry the state from window to window.
        nonlinearity: "tanh", or "relu" in its place (Le et al. 2015).

    Raises:
        ValueError: for another nonlinearity.
    """

    def __init__(
        self, Wx: Array, Wh: Array, b: Array, stateful: bool = False, nonlinearity: str = "tanh"
    ) -> None:
        super().__init__(Wx, Wh, b, stateful)
        self.nonlinearity = check_nonlinearity(type(self).__name__, nonlinearity)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, b = self.params
        xs, A = self.begin(xs)
        T, N, H = A.shape
        hs = np.empty((T + 1, N, H), dtype=A.dtype)  # index t before step t
        first, relu = self.first_states(N), self.nonlinearity == "relu"
        if not kernels.rnn_forward(xs, Wx, Wh, b, first, A, hs, relu):
            kernels.affine(xs, Wx, b, out=A)
            with kernels.one_thread_if_small(hs[0], Wh):
                for t in range(T):
                    A[t] += hs[t] @ Wh
                    self._activate(A[t], out=hs[t + 1])
        self.state = (hs[T].copy(),)
        self.cache = (xs, hs)
        return read_only(batch_first(hs[1:]))

    def backward(self, dhs: Array) -> Array:
        """(N, T, H) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs = self.saved()
        (T, N, H) = hs[1:].shape
        dhs, dh = self.begin_backward(dhs, (T, N, H))
        dA = kernels.rnn_backward(Wh, hs, dhs, dh, self.nonlinearity == "relu")
        if dA is None:
            dA = self._slope(hs[1:])
            with kernels.one_thread_if_small(dh, Wh):
                for t in reversed(range(T)):
                    dA[t] *= dhs[t] + dh
                    dh = dA[t] @ Wh.T
        self.dstate = (dh,)
        return self.back_project(xs, hs[:T], dA, dA)

    def _activate(self, A: Array, out: Array) -> None:
        np.tanh(A, out=out) if self.nonlinearity == "tanh" else np.maximum(A, 0, out=out)

    def _slope(self, h: Array) -> Array:
        return 1 - h**2 if self.nonlinearity == "tanh" else (h > 0).astype(h.dtype)
