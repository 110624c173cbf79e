"""The LSTM over T steps: equations, the window in NumPy, and the call of the compiled kernel.

Its cell, one step at a time, is ``common.layers.LSTM``; the kernels are ``lstm.c`` and
``lstm.cu`` in ``common/kernels``.
"""

from __future__ import annotations

from common import kernels
from common.base_layer import LSTM_GATES, TimeRecurrent, batch_first, read_only, split_gates
from common.np import Array, np


class TimeLSTM(TimeRecurrent):
    """A = x[t] Wx + h[t-1] Wh + b;  f, i, o = sigmoid(A_f, A_i, A_o);  g = tanh(A_g).

    c[t] = f * c[t-1] + g * i;  h[t] = o * tanh(c[t]).  Hochreiter and Schmidhuber (1997) with the
    forget gate of Gers et al. (2000).

    Args:
        Wx: (D, 4H), gates in the order f, g, i, o.
        Wh: (H, 4H).
        b: (4H,).
        stateful: carry the state from window to window.

    ``h`` and ``c`` are the states after the last step, ``dh`` and ``dc`` the gradients of the
    states before the first.
    """

    state_names = ("h", "c")
    gates = LSTM_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates,)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, b = self.params
        xs, A = self.begin(xs)
        (T, N, _), H = A.shape, len(Wh)
        hs = np.empty((T + 1, N, H), dtype=A.dtype)  # index t before step t
        cs = np.empty_like(hs)
        first = self.first_states(N)
        if not kernels.lstm_forward(xs, Wx, Wh, b, first, A, hs, cs, self.workspace):
            kernels.affine(xs, Wx, b, out=A)
            self._forward_window(Wh, A, hs, cs)
        self.state = (hs[T].copy(), cs[T].copy())
        self.cache = (xs, hs, cs, A)  # A holds f, g, i, o by now
        return read_only(batch_first(hs[1:]))

    def backward(self, dhs: Array, dc_next: Array | None = None) -> Array:
        """(N, T, H), and (N, H) for c after the last step (None: unused) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs, cs, gates = self.saved()
        dhs, dh, dc = self.begin_backward(dhs, hs[1:].shape, dc_next)
        dA = self.workspace.empty(gates.shape, gates.dtype)
        if not kernels.lstm_backward(Wh, gates, cs, dhs, dh, dc, dA, self.workspace):
            self._backward_window(Wh, gates, cs, dhs, dh, dc, dA)
        self.dstate = (dh, dc)
        return self.back_project(xs, hs[:-1], dA, dA)

    @staticmethod
    def _forward_window(Wh: Array, A: Array, hs: Array, cs: Array) -> None:
        """From A = xs Wx + b (T, N, 4H) to the gates, in place; fill hs and cs (T + 1, N, H)."""
        T, H = len(A), len(Wh)
        # sigmoid(a) = 0.5 tanh(0.5 a) + 0.5, so one tanh serves all four gates:
        # gate = scale * tanh(scale * a) + shift
        scale = np.full(4 * H, 0.5, dtype=A.dtype)
        split_gates(scale)[1][...] = 1  # g is a tanh itself
        shift = 1 - scale
        gi = np.empty_like(hs[0])
        with kernels.one_thread_if_small(hs[0], Wh):
            for t in range(T):
                a = A[t]  # one view: CuPy copies what lies in the memory of ``out``, and is not it
                a += hs[t] @ Wh
                a *= scale
                np.tanh(a, out=a)
                a *= scale
                a += shift
                f, g, i, o = split_gates(a)
                np.multiply(f, cs[t], out=cs[t + 1])
                cs[t + 1] += np.multiply(g, i, out=gi)
                np.tanh(cs[t + 1], out=hs[t + 1])
                hs[t + 1] *= o

    @staticmethod
    def _backward_window(
        Wh: Array, gates: Array, cs: Array, dhs: Array, dh: Array, dc: Array, dA: Array
    ) -> None:
        """Write dA (T, N, 4H); dh and dc (N, H) go from the last states to the first, in place."""
        T, N, H = dhs.shape
        f, g, i, o = split_gates(gates)
        dA_f, dA_g, dA_i, dA_o = split_gates(dA)
        # What does not wait for the next step is done for all steps at once: the slope of each
        # gate times what the gate multiplies.
        tanh_cs = np.tanh(cs[1:])
        dc_dh = o * (1 - tanh_cs**2)
        np.multiply(gates, 1 - gates, out=dA)
        dA_o *= tanh_cs
        dA_i *= g
        np.multiply(1 - g**2, i, out=dA_g)
        dA_f *= cs[:T]
        dA_fgi = dA[..., : 3 * H].reshape(T, N, 3, H)  # the three that are reached through c
        with kernels.one_thread_if_small(dh, Wh):
            for t in reversed(range(T)):
                dh += dhs[t]
                dc += dh * dc_dh[t]
                dA_fgi[t] *= dc[:, None, :]
                dA_o[t] *= dh
                dc *= f[t]
                np.matmul(dA[t], Wh.T, out=dh)
