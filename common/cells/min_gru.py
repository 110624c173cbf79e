"""The GRU without a product of the state."""

from __future__ import annotations

import numpy

from common.base_layer import Layer, normal, split_gates, zeros
from common.functions import sigmoid
from common.np import Array, np


class MinGRU(Layer):
    """z = sigmoid(x Wxz + bz);  n = x Wxn + bn;  h = (1 - z) * h_prev + z * n.

    Feng et al. (2024), "Were RNNs All We Needed?", section 3.1: gate and candidate depend on x
    alone, so the step is linear in h_prev. The candidate has no tanh. The paper's z is 1 - z of
    :class:`common.layers.GRU`: at z = 1 the state is replaced.

    Args:
        Wx: (D, 2H), in the order z, n.
        b: (2H,).

    Raises:
        ValueError: for parameters of other shapes.
    """

    param_names = ("Wx", "b")
    state_names = ("h",)
    gates = "zn"
    recurrent_weights: tuple[str, ...] = ()

    def __init__(self, Wx: Array, b: Array) -> None:
        super().__init__(Wx, b)
        if b.ndim != 1 or len(b) % len(self.gates):
            self.expect_shape("b", b, "2H")
            raise ValueError(f"{type(self).__name__}: expected b of even length, got {len(b)}")
        self.expect_shape("Wx", Wx, "D", len(b))

    @classmethod
    def build(cls, D: int, H: int, rng: numpy.random.Generator, dtype: str) -> MinGRU:
        """Wx is normal with 1 / sqrt(D); biases are zero, so each step begins by halving h_prev."""
        return cls(normal(rng, (D, 2 * H), D**-0.5, dtype), zeros(2 * H, dtype))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of h."""
        return (len(self.params[1]) // len(self.gates),)

    def forward(self, x: Array, h_prev: Array) -> Array:
        """(N, D), (N, H) -> (N, H)."""
        Wx, b = self.params
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), *self.state_sizes)
        z, n = split_gates(x @ Wx + b, self.gates)
        z = sigmoid(z)
        h_next = (1 - z) * h_prev + z * n
        self.cache = (x, h_prev, z, n)
        return h_next

    def gate_values(self) -> dict[str, Array]:
        """z and n of the last step, each (N, H)."""
        _, _, z, n = self.saved()
        return {"z": z, "n": n}

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        """(N, H) -> dx (N, D), dh_prev (N, H)."""
        Wx, _ = self.params
        x, h_prev, z, n = self.saved()
        dh_prev = dh_next * (1 - z)
        dz, dn = dh_next * (n - h_prev), dh_next * z
        dA = np.concatenate([dz * z * (1 - z), dn], axis=1)
        self.grads[0][...] = x.T @ dA
        self.grads[1][...] = dA.sum(axis=0)
        return dA @ Wx.T, dh_prev
