"""One step: the layers and cells in the form in which they are easiest to check by eye.

The time layers do the same for T steps at once and may do it in another order; a test holds
the two together. Shapes: N batch, D input width, H hidden width, V classes.
"""

from __future__ import annotations

import math

import numpy

from common.base_layer import (
    GRU_GATES,
    LSTM_GATES,
    Layer,
    Recurrent,
    check_ratio,
    read_only,
    split_gates,
)
from common.functions import cross_entropy_error, log_softmax, relu, sigmoid, softmax, tanh
from common.masks import Masks
from common.np import GPU, Array, Scalar, array_of, np

__all__ = [
    "GPU",
    "GRU",
    "LSTM",
    "RNN",
    "Affine",
    "Dropout",
    "Embedding",
    "MatMul",
    "Sigmoid",
    "SigmoidWithLoss",
    "Softmax",
    "SoftmaxWithLoss",
    "cross_entropy_error",
    "np",
    "softmax",
]


class MatMul(Layer):
    """y = x W.

    Args:
        W: weight (D, H).
    """

    param_names = ("W",)

    def __init__(self, W: Array) -> None:
        super().__init__(W)

    def forward(self, x: Array) -> Array:
        """(N, D) -> (N, H), or (N, T, D) -> (N, T, H)."""
        (W,) = self.params
        self.expect_shape("x", x, *("NT" if x.ndim == 3 else "N"), len(W))
        self.cache = (x,)
        return x @ W

    def backward(self, dout: Array) -> Array:
        """(N, H) -> (N, D), or (N, T, H) -> (N, T, D); writes dW."""
        (W,) = self.params
        (x,) = self.saved()
        D, H = W.shape
        self.expect_shape("dout", dout, *x.shape[:-1], H)
        self.grads[0][...] = x.reshape(-1, D).T @ dout.reshape(-1, H)
        return dout @ W.T


class Affine(Layer):
    """y = x W + b.

    Args:
        W: weight (D, H).
        b: bias (H,).
    """

    param_names = ("W", "b")

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.expect_shape("b", b, W.shape[1])

    def forward(self, x: Array) -> Array:
        """(N, D) -> (N, H), or (N, T, D) -> (N, T, H)."""
        W, b = self.params
        self.expect_shape("x", x, *("NT" if x.ndim == 3 else "N"), len(W))
        self.cache = (x,)
        return x @ W + b

    def backward(self, dout: Array) -> Array:
        """(N, H) -> (N, D), or (N, T, H) -> (N, T, D); writes dW and db."""
        W, _ = self.params
        (x,) = self.saved()
        D, H = W.shape
        self.expect_shape("dout", dout, *x.shape[:-1], H)
        douts = dout.reshape(-1, H)
        self.grads[0][...] = x.reshape(-1, D).T @ douts
        self.grads[1][...] = douts.sum(axis=0)
        return dout @ W.T


class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) along the last axis."""

    def forward(self, x: Array) -> Array:
        """(N, V) -> (N, V), rows that sum to 1."""
        y = softmax(x)
        self.cache = (y,)
        return read_only(y)

    def backward(self, dout: Array) -> Array:
        """dx = y * (dout - sum(y * dout))."""
        (y,) = self.saved()
        return y * (dout - (y * dout).sum(axis=-1, keepdims=True))


class SoftmaxWithLoss(Layer):
    """Mean of -log softmax(x)[t] over the rows, from the scores themselves."""

    def forward(self, x: Array, t: Array) -> Scalar:
        """Scores (N, V) and class ids (N,) or one-hot rows (N, V) -> the loss, a scalar."""
        self.expect_shape("x", x, "N", "V")
        N, V = x.shape
        if t.ndim == 2:
            self.expect_shape("t", t, N, V)
            t = t.argmax(axis=1)
        self.expect_shape("t", t, N)
        self.expect_ids("t", t, V)
        log_y = log_softmax(x)
        self.cache = (log_y, t)
        return -log_y[np.arange(N), t].mean(dtype="float64")

    def backward(self, dout: float = 1) -> Array:
        """dx = (softmax(x) - onehot(t)) * dout / N."""
        log_y, t = self.saved()
        N, _ = log_y.shape
        dx = np.exp(log_y)
        dx[np.arange(N), t] -= 1
        return dx * (dout / N)


class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Array) -> Array:
        """Any shape."""
        y = sigmoid(x)
        self.cache = (y,)
        return read_only(y)

    def backward(self, dout: Array) -> Array:
        """dx = dout * y * (1 - y)."""
        (y,) = self.saved()
        return dout * y * (1 - y)


class SigmoidWithLoss(Layer):
    """Mean of -t log(y) - (1 - t) log(1 - y) with y = sigmoid(x): binary cross-entropy.

    Computed as max(x, 0) - x t + log(1 + exp(-|x|)), which is finite at any score.
    """

    def forward(self, x: Array, t: Array) -> Scalar:
        """Scores and targets 0 or 1, both of one shape -> the loss, a scalar."""
        if x.size == 0:
            raise ValueError(f"{type(self).__name__}: expected scores, got shape {x.shape}")
        self.expect_shape("t", t, *x.shape)
        t = np.asarray(t, dtype=x.dtype)
        self.cache = (sigmoid(x), t)
        losses = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
        return losses.mean(dtype="float64")

    def backward(self, dout: float = 1) -> Array:
        """dx = (sigmoid(x) - t) * dout / size."""
        y, t = self.saved()
        return (y - t) * (dout / y.size)


class Dropout(Layer):
    """While training, zeroes each value with probability ``dropout_ratio``, scales up the rest.

    Srivastava et al. (2014), in the inverted form: evaluation changes nothing.

    Args:
        dropout_ratio: probability of dropping, in [0, 1), rounded to 16 bits.
        rng: gives the masks their seed (``common.masks``); a fresh generator if None.

    Raises:
        ValueError: for a ratio outside [0, 1).
    """

    def __init__(self, dropout_ratio: float = 0.5, rng: numpy.random.Generator | None = None):
        super().__init__()
        self.dropout_ratio = check_ratio(type(self).__name__, dropout_ratio)
        self.masks = Masks(rng)

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """(N, ...), each row with a mask of its own."""
        if not train_flg:
            self.cache = None
            return x
        size = math.prod(x.shape[1:])
        kept, scale = self.masks.of_streams(self.dropout_ratio, len(x), 1, size)
        mask = kept.reshape(x.shape).astype(x.dtype) * scale
        self.cache = (mask,)
        return x * mask

    def backward(self, dout: Array) -> Array:
        """dx = dout * mask."""
        (mask,) = self.saved()
        return dout * mask


class Embedding(Layer):
    """y = W[idx].

    Args:
        W: one row for each id (V, D).
    """

    param_names = ("W",)

    def __init__(self, W: Array) -> None:
        super().__init__(W)

    def forward(self, idx: Array) -> Array:
        """Ids (N,) or (N, T) -> rows (N, D) or (N, T, D)."""
        (W,) = self.params
        idx = array_of(idx)
        self.expect_shape("idx", idx, *("NT" if idx.ndim == 2 else "N"))
        self.expect_ids("idx", idx, len(W))
        self.cache = (idx,)
        return W[idx]

    def backward(self, dout: Array) -> None:
        """Of the rows -> nothing, since ids have no gradient; adds up those of each id into dW."""
        (idx,) = self.saved()
        self.expect_shape("dout", dout, *idx.shape, self.grads[0].shape[1])
        self.grads[0][...] = 0
        np.add.at(self.grads[0], idx, dout)


def check_nonlinearity(who: str, nonlinearity: str) -> str:
    """``nonlinearity`` if an RNN knows it.

    Raises:
        ValueError: for anything but "tanh" and "relu".
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{who}: expected nonlinearity 'tanh' or 'relu', got {nonlinearity!r}")
    return nonlinearity


class RNN(Recurrent):
    """h = tanh(x Wx + h_prev Wh + b), or relu in place of tanh.  Elman (1990); Le et al. (2015).

    Args:
        Wx: (D, H).
        Wh: (H, H).
        b: (H,).
        nonlinearity: "tanh" or "relu".

    Raises:
        ValueError: for another nonlinearity.
    """

    def __init__(self, Wx: Array, Wh: Array, b: Array, nonlinearity: str = "tanh") -> None:
        super().__init__(Wx, Wh, b)
        self.nonlinearity = check_nonlinearity(type(self).__name__, nonlinearity)

    def forward(self, x: Array, h_prev: Array) -> Array:
        """(N, D), (N, H) -> (N, H)."""
        Wx, Wh, b = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        A = x @ Wx + h_prev @ Wh + b
        h_next = tanh(A) if self.nonlinearity == "tanh" else relu(A)
        self.cache = (x, h_prev, h_next)
        return read_only(h_next)

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        """(N, H) -> dx (N, D), dh_prev (N, H)."""
        Wx, Wh, _ = self.params
        x, h_prev, h_next = self.saved()
        slope = 1 - h_next**2 if self.nonlinearity == "tanh" else h_next > 0
        dA = dh_next * slope
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dA
        self.grads[2][...] = dA.sum(axis=0)
        return dA @ Wx.T, dA @ Wh.T


class LSTM(Recurrent):
    """A = x Wx + h_prev Wh + b;  f, i, o = sigmoid(A_f, A_i, A_o);  g = tanh(A_g).

    c = f * c_prev + g * i;  h = o * tanh(c).  Hochreiter and Schmidhuber (1997) with the forget
    gate of Gers et al. (2000). The gates stand side by side in the order f, g, i, o.

    Args:
        Wx: (D, 4H).
        Wh: (H, 4H).
        b: (4H,).
    """

    state_names = ("h", "c")
    gates = LSTM_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates,)

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """(N, D), (N, H), (N, H) -> h_next (N, H), c_next (N, H)."""
        Wx, Wh, b = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        self.expect_shape("c_prev", c_prev, len(x), len(Wh))
        f, g, i, o = split_gates(x @ Wx + h_prev @ Wh + b)
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        c_next = f * c_prev + g * i
        tanh_c = np.tanh(c_next)
        h_next = o * tanh_c
        self.cache = (x, h_prev, c_prev, f, g, i, o, tanh_c)
        return h_next, c_next

    def gate_values(self) -> dict[str, Array]:
        """f, g, i and o of the last step, each (N, H)."""
        _, _, _, f, g, i, o, _ = self.saved()
        return {"f": f, "g": g, "i": i, "o": o}

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """(N, H), (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        Wx, Wh, _ = self.params
        x, h_prev, c_prev, f, g, i, o, tanh_c = self.saved()
        do = dh_next * tanh_c
        dc = dc_next + dh_next * o * (1 - tanh_c**2)
        df, dc_prev = dc * c_prev, dc * f
        dg, di = dc * i, dc * g
        dA = np.concatenate(
            [df * f * (1 - f), dg * (1 - g**2), di * i * (1 - i), do * o * (1 - o)], axis=1
        )
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dA
        self.grads[2][...] = dA.sum(axis=0)
        return dA @ Wx.T, dA @ Wh.T, dc_prev


class GRU(Recurrent):
    """r, z = sigmoid(x Wx + h_prev Wh + b);  n = tanh(x Wxn + bn + r * (h_prev Whn + bhn)).

    h = (1 - z) * n + z * h_prev.  Of the two published forms of the candidate this is the one
    that resets after the product (Cho et al. 2014, version 3; cuDNN and PyTorch), which lets one
    product serve all three gates. They stand side by side in the order r, z, n.

    Args:
        Wx: (D, 3H).
        Wh: (H, 3H).
        b: (3H,), or (4H,) with the candidate's own recurrent bias bhn last.
    """

    gates = GRU_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates, num_gates + 1)

    def forward(self, x: Array, h_prev: Array) -> Array:
        """(N, D), (N, H) -> (N, H)."""
        Wx, Wh, b = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        H = len(Wh)
        r, z, n = split_gates(x @ Wx + b[: 3 * H], GRU_GATES)
        hr, hz, hn = split_gates(h_prev @ Wh, GRU_GATES)
        if len(b) == 4 * H:
            hn = hn + b[3 * H :]
        r, z = sigmoid(r + hr), sigmoid(z + hz)
        n = np.tanh(n + r * hn)
        h_next = (1 - z) * n + z * h_prev
        self.cache = (x, h_prev, r, z, n, hn)
        return h_next

    def gate_values(self) -> dict[str, Array]:
        """r, z and n of the last step, each (N, H)."""
        _, _, r, z, n, _ = self.saved()
        return {"r": r, "z": z, "n": n}

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        """(N, H) -> dx (N, D), dh_prev (N, H)."""
        Wx, Wh, _ = self.params
        x, h_prev, r, z, n, hn = self.saved()
        H = len(Wh)
        dz = dh_next * (h_prev - n) * z * (1 - z)
        dn = dh_next * (1 - z) * (1 - n**2)
        dhn = dn * r
        dr = dn * hn * r * (1 - r)
        dA = np.concatenate([dr, dz, dn], axis=1)  # towards x and b
        dAh = np.concatenate([dr, dz, dhn], axis=1)  # towards h_prev
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = h_prev.T @ dAh
        self.grads[2][: 3 * H] = dA.sum(axis=0)
        self.grads[2][3 * H :] = dhn.sum(axis=0)[: len(self.grads[2]) - 3 * H]
        return dA @ Wx.T, dAh @ Wh.T + dh_next * z
