"""The LSTM whose gates see the cell."""

from __future__ import annotations

import numpy

from common.base_layer import LSTM_GATES, Recurrent, normal, read_only, split_gates, zeros
from common.functions import sigmoid
from common.np import Array, np

PEEPHOLES = "fio"  # the gates that see the cell, in the order of their blocks in p


class PeepholeLSTM(Recurrent):
    """An LSTM whose gates see the cell, each unit its own: A = x Wx + h_prev Wh + b.

    f, i = sigmoid(A_f + p_f * c_prev), sigmoid(A_i + p_i * c_prev);  g = tanh(A_g);
    c = f * c_prev + g * i;  o = sigmoid(A_o + p_o * c);  h = o * tanh(c).

    Gers, Schraudolph and Schmidhuber (2002), in the form of Graves (2013), equations 7 to 11: the
    output passes a tanh, and the gradient flows back through the peepholes too.

    Args:
        Wx: (D, 4H), gates in the order f, g, i, o.
        Wh: (H, 4H).
        b: (4H,).
        p: peepholes (3H,), in the order f, i, o.
    """

    param_names = ("Wx", "Wh", "b", "p")
    state_names = ("h", "c")
    gates = LSTM_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates,)

    def __init__(self, Wx: Array, Wh: Array, b: Array, p: Array) -> None:
        super().__init__(Wx, Wh, b)
        self.expect_shape("p", p, len(PEEPHOLES) * len(Wh))
        self.params.append(p)
        self.grads.append(np.zeros_like(p))

    @classmethod
    def build(cls, D: int, H: int, rng: numpy.random.Generator, dtype: str) -> PeepholeLSTM:
        """Wx is normal with 1 / sqrt(D), Wh with 1 / sqrt(H); biases and peepholes are zero.

        With peepholes of zero the cell begins as an LSTM.
        """
        Wx = normal(rng, (D, 4 * H), D**-0.5, dtype)
        Wh = normal(rng, (H, 4 * H), H**-0.5, dtype)
        return cls(Wx, Wh, zeros(4 * H, dtype), zeros(3 * H, dtype))

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """(N, D), (N, H), (N, H) -> h_next (N, H), c_next (N, H)."""
        Wx, Wh, b, p = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        self.expect_shape("c_prev", c_prev, len(x), len(Wh))
        p_f, p_i, p_o = split_gates(p, PEEPHOLES)
        f, g, i, o = split_gates(x @ Wx + h_prev @ Wh + b)
        f, g, i = sigmoid(f + p_f * c_prev), np.tanh(g), sigmoid(i + p_i * c_prev)
        c_next = f * c_prev + g * i
        o = sigmoid(o + p_o * c_next)
        tanh_c = np.tanh(c_next)
        h_next = o * tanh_c
        self.cache = (x, h_prev, c_prev, f, g, i, o, c_next, tanh_c)
        return h_next, read_only(c_next)

    def gate_values(self) -> dict[str, Array]:
        """f, g, i and o of the last step, each (N, H)."""
        _, _, _, f, g, i, o, *_ = self.saved()
        return {"f": f, "g": g, "i": i, "o": o}

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """(N, H), (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        Wx, Wh, _, p = self.params
        x, h_prev, c_prev, f, g, i, o, c_next, tanh_c = self.saved()
        p_f, p_i, p_o = split_gates(p, PEEPHOLES)
        do = dh_next * tanh_c * o * (1 - o)
        dc = dc_next + dh_next * o * (1 - tanh_c**2) + do * p_o
        df = dc * c_prev * f * (1 - f)
        dg = dc * i * (1 - g**2)
        di = dc * g * i * (1 - i)
        dc_prev = dc * f + df * p_f + di * p_i
        dA = np.concatenate([df, dg, di, do], axis=1)
        dp = np.concatenate([df * c_prev, di * c_prev, do * c_next], axis=1)
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dA
        self.grads[2][...] = dA.sum(axis=0)
        self.grads[3][...] = dp.sum(axis=0)
        return dA @ Wx.T, dA @ Wh.T, dc_prev
