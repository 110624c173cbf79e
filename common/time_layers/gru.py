"""The GRU over T steps: equations, the window in NumPy, and the call of the compiled kernel.

Its cell, one step at a time, is ``common.layers.GRU``; the kernels are ``gru.c`` and ``gru.cu`` in
``common/kernels``.
"""

from __future__ import annotations

from common import kernels
from common.base_layer import GRU_GATES, TimeRecurrent, batch_first, read_only, split_gates
from common.np import Array, np


class TimeGRU(TimeRecurrent):
    """r, z = sigmoid(x[t] Wx + h[t-1] Wh + b);  n = tanh(x[t] Wxn + bn + r * (h[t-1] Whn + bhn)).

    h[t] = (1 - z) * n + z * h[t-1].  Cho et al. (2014), in the version that resets after the
    product, as cuDNN and PyTorch do.

    Args:
        Wx: (D, 3H), gates in the order r, z, n.
        Wh: (H, 3H).
        b: (3H,), or (4H,) with the candidate's own recurrent bias bhn last.
        stateful: carry the state from window to window.
    """

    gates = GRU_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates, num_gates + 1)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, b = self.params
        xs, A = self.begin(xs)
        (T, N, _), H = A.shape, len(Wh)
        b, bhn = b[: 3 * H], b[3 * H :] if len(b) == 4 * H else np.zeros(H, dtype=b.dtype)
        hs = np.empty((T + 1, N, H), dtype=A.dtype)  # index t before step t
        hns = np.empty_like(hs[1:])  # h[t-1] Whn + bhn, which r multiplies
        first = self.first_states(N)
        if not kernels.gru_forward(xs, Wx, Wh, b, bhn, first, A, hs, hns, self.workspace):
            kernels.affine(xs, Wx, b, out=A)
            self._forward_window(Wh, bhn, A, hs, hns)
        self.state = (hs[T].copy(),)
        self.cache = (xs, hs, hns, A)  # A holds r, z, n by now
        return read_only(batch_first(hs[1:]))

    def backward(self, dhs: Array) -> Array:
        """(N, T, H) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs, hns, gates = self.saved()
        H = len(Wh)
        dhs, dh = self.begin_backward(dhs, hns.shape)
        dA, dAh = (self.workspace.empty(gates.shape, gates.dtype) for _ in range(2))
        if not kernels.gru_backward(Wh, gates, hs, hns, dhs, dh, dA, dAh, self.workspace):
            self._backward_window(Wh, gates, hs, hns, dhs, dh, dA, dAh)
        self.dstate = (dh,)
        db_hn = self.grads[2][3 * H :]
        if len(db_hn):
            db_hn[...] = dAh[..., 2 * H :].sum(axis=(0, 1))
        return self.back_project(xs, hs[:-1], dA, dAh)

    @staticmethod
    def _forward_window(Wh: Array, bhn: Array, A: Array, hs: Array, hns: Array) -> None:
        """From A = xs Wx + b (T, N, 3H) to the gates, in place; fill hs (T + 1, N, H) and hns."""
        T, H = len(A), len(Wh)
        with kernels.one_thread_if_small(hs[0], Wh):
            for t in range(T):
                h_Wh = hs[t] @ Wh
                rz, n = A[t, :, : 2 * H], A[t, :, 2 * H :]
                rz += h_Wh[:, : 2 * H]
                rz *= 0.5  # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5
                np.tanh(rz, out=rz)
                rz += 1
                rz *= 0.5
                r, z = rz[:, :H], rz[:, H:]
                np.add(h_Wh[:, 2 * H :], bhn, out=hns[t])
                n += r * hns[t]
                np.tanh(n, out=n)
                np.add(n, z * (hs[t] - n), out=hs[t + 1])  # (1 - z) n + z h_prev

    @staticmethod
    def _backward_window(
        Wh: Array,
        gates: Array,
        hs: Array,
        hns: Array,
        dhs: Array,
        dh: Array,
        dA: Array,
        dAh: Array,
    ) -> None:
        """Write the gradients dA of xs Wx + b and dAh of h_prev Wh, both (T, N, 3H).

        ``dh`` (N, H) goes from the last state to the first, in place.
        """
        T, N, H = dhs.shape
        r, z, n = split_gates(gates, GRU_GATES)
        dA_r, dA_z, dA_n = split_gates(dA, GRU_GATES)
        # As in the LSTM: first, for all steps at once, what dh will be multiplied by.
        np.multiply(1 - z, 1 - n**2, out=dA_n)
        np.multiply(z * (1 - z), hs[:T] - n, out=dA_z)
        np.multiply(r * (1 - r), hns * dA_n, out=dA_r)
        dAh[...] = dA
        split_gates(dAh, GRU_GATES)[2][...] *= r
        with kernels.one_thread_if_small(dh, Wh):
            for t in reversed(range(T)):
                dh += dhs[t]
                by_gate = dh[:, None, :]
                dA[t].reshape(N, 3, H)[...] *= by_gate
                dAh[t].reshape(N, 3, H)[...] *= by_gate
                dh *= z[t]
                dh += dAh[t] @ Wh.T
