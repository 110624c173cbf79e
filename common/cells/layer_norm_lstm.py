"""The LSTM with layer normalization."""

from __future__ import annotations

import numpy

from common.base_layer import LSTM_GATES, Recurrent, normal, split_gates, zeros
from common.functions import sigmoid
from common.np import Array, np

EPS = 1e-5  # under the root: a row of equal values becomes zeros, not 0 / 0


def normalize(x: Array) -> tuple[Array, Array]:
    """x_hat = (x - mean) / std of each row, with std = sqrt(variance + EPS).

    Returns:
        x_hat in the shape of x (N, H), and std (N, 1).
    """
    centred = x - x.mean(axis=1, keepdims=True)
    std = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPS)
    return centred / std, std


def normalize_backward(dx_hat: Array, x_hat: Array, std: Array) -> Array:
    """dx = (dx_hat - mean(dx_hat) - x_hat * mean(dx_hat * x_hat)) / std."""
    shift = dx_hat.mean(axis=1, keepdims=True)
    stretch = (dx_hat * x_hat).mean(axis=1, keepdims=True)
    return (dx_hat - shift - x_hat * stretch) / std


class LayerNormLSTM(Recurrent):
    """A = gain_x * LN(x Wx) + gain_h * LN(h_prev Wh) + b, with LN(a) = (a - mean) / std.

    f, i, o = sigmoid(A_f, A_i, A_o);  g = tanh(A_g);  c = f * c_prev + g * i;
    h = o * tanh(gain_c * LN(c) + b_c).  Ba, Kiros and Hinton (2016), supplement, equations 20 to
    22. Mean and std are those of a row, over all four gates at once; std = sqrt(variance + 1e-5).
    The paper gives each of the two norms a bias and adds b; here the sum of the three is b.

    Where h_prev is zero, as before the first step, std is sqrt(1e-5): dh_prev is then large.

    Args:
        Wx: (D, 4H), gates in the order f, g, i, o.
        Wh: (H, 4H).
        b: (4H,).
        gain_x: (4H,).
        gain_h: (4H,).
        gain_c: (H,).
        b_c: (H,).
    """

    param_names = ("Wx", "Wh", "b", "gain_x", "gain_h", "gain_c", "b_c")
    state_names = ("h", "c")
    gates = LSTM_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates,)

    def __init__(
        self,
        Wx: Array,
        Wh: Array,
        b: Array,
        gain_x: Array,
        gain_h: Array,
        gain_c: Array,
        b_c: Array,
    ) -> None:
        super().__init__(Wx, Wh, b)
        H = len(Wh)
        self.expect_shape("gain_x", gain_x, 4 * H)
        self.expect_shape("gain_h", gain_h, 4 * H)
        self.expect_shape("gain_c", gain_c, H)
        self.expect_shape("b_c", b_c, H)
        more = (gain_x, gain_h, gain_c, b_c)
        self.params += more
        self.grads += [np.zeros_like(param) for param in more]

    @classmethod
    def build(cls, D: int, H: int, rng: numpy.random.Generator, dtype: str) -> LayerNormLSTM:
        """Wx is normal with 1 / sqrt(D), Wh with 1 / sqrt(H).

        Gains are one and biases zero, as in the paper.
        """
        Wx = normal(rng, (D, 4 * H), D**-0.5, dtype)
        Wh = normal(rng, (H, 4 * H), H**-0.5, dtype)
        gain_x, gain_h, gain_c = (np.ones(size, dtype=dtype) for size in (4 * H, 4 * H, H))
        return cls(Wx, Wh, zeros(4 * H, dtype), gain_x, gain_h, gain_c, zeros(H, dtype))

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """(N, D), (N, H), (N, H) -> h_next (N, H), c_next (N, H)."""
        Wx, Wh, b, gain_x, gain_h, gain_c, b_c = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        self.expect_shape("c_prev", c_prev, len(x), len(Wh))
        x_hat, x_std = normalize(x @ Wx)
        h_hat, h_std = normalize(h_prev @ Wh)
        f, g, i, o = split_gates(gain_x * x_hat + gain_h * h_hat + b)
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        c_next = f * c_prev + g * i
        c_hat, c_std = normalize(c_next)
        tanh_c = np.tanh(gain_c * c_hat + b_c)
        h_next = o * tanh_c
        norms = (x_hat, x_std, h_hat, h_std, c_hat, c_std)
        self.cache = (x, h_prev, c_prev, f, g, i, o, tanh_c, *norms)
        return h_next, c_next

    def gate_values(self) -> dict[str, Array]:
        """f, g, i and o of the last step, each (N, H)."""
        _, _, _, f, g, i, o, *_ = self.saved()
        return {"f": f, "g": g, "i": i, "o": o}

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """(N, H), (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        Wx, Wh, _, gain_x, gain_h, gain_c, _ = self.params
        x, h_prev, c_prev, f, g, i, o, tanh_c, *norms = self.saved()
        x_hat, x_std, h_hat, h_std, c_hat, c_std = norms
        do = dh_next * tanh_c
        dC = dh_next * o * (1 - tanh_c**2)  # of the argument of tanh
        dc = dc_next + normalize_backward(dC * gain_c, c_hat, c_std)
        df, dc_prev = dc * c_prev, dc * f
        dg, di = dc * i, dc * g
        dA = np.concatenate(
            [df * f * (1 - f), dg * (1 - g**2), di * i * (1 - i), do * o * (1 - o)], axis=1
        )
        dAh = normalize_backward(dA * gain_h, h_hat, h_std)  # of h_prev Wh
        dAx = normalize_backward(dA * gain_x, x_hat, x_std)  # of x Wx
        self.grads[0][...] = x.T @ dAx
        self.grads[1][...] = h_prev.T @ dAh
        self.grads[2][...] = dA.sum(axis=0)
        self.grads[3][...] = (dA * x_hat).sum(axis=0)
        self.grads[4][...] = (dA * h_hat).sum(axis=0)
        self.grads[5][...] = (dC * c_hat).sum(axis=0)
        self.grads[6][...] = dC.sum(axis=0)
        return dAx @ Wx.T, dAh @ Wh.T, dc_prev
