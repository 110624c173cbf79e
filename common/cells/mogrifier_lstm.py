"""The LSTM whose input and state gate each other first."""

from __future__ import annotations

import numpy

from common.base_layer import LSTM_GATES, Recurrent, normal, zeros
from common.functions import sigmoid
from common.layers import LSTM
from common.np import Array, np


def gating_shapes(
    D: int, H: int, rounds: int, rank: int | None
) -> list[tuple[str, tuple[int, int]]]:
    """Names and shapes of the gating matrices, in the order in which they are used.

    Round i = 1, 3, .. has Qi (H, D), round i = 2, 4, .. has Ri (D, H); with a rank k either is a
    product of two, ``_left`` (., k) and ``_right`` (k, .).
    """
    found = []
    for k in range(rounds):
        name = f"{'QR'[k % 2]}{k + 1}"
        rows, columns = (H, D) if k % 2 == 0 else (D, H)
        if rank is None:
            found.append((name, (rows, columns)))
        else:
            found += [(f"{name}_left", (rows, rank)), (f"{name}_right", (rank, columns))]
    return found


class MogrifierLSTM(Recurrent):
    """h, c = LSTM(x, h_prev, c_prev), after x and h_prev have gated each other for r rounds.

    x = 2 sigmoid(h_prev Qi) * x in round i = 1, 3, ..;  h_prev = 2 sigmoid(x Ri) * h_prev in
    round i = 2, 4, ..;  with a rank k, Qi = Qi_left Qi_right and Ri likewise.  Melis, Kočiský
    and Blunsom (2020), equations 1 and 2. The factor 2 keeps a gate of small weights near 1.

    Args:
        Wx: (D, 4H), gates in the order f, g, i, o.
        Wh: (H, 4H).
        b: (4H,).
        gating: Q1 (H, D), R2 (D, H), Q3 ..; with a rank Q1_left (H, k), Q1_right (k, D),
            R2_left (D, k), R2_right (k, H) ..
        rounds: r, 0 for an LSTM.
        rank: k, None for whole matrices. The authors tune r and k for each corpus; their model
            of the Penn Treebank has r = 5 and k = 84.

    Raises:
        ValueError: for fewer than 0 rounds, a rank below 1, or another number of matrices.
    """

    param_names: tuple[str, ...] = ("Wx", "Wh", "b")  # and of each cell those of its gating
    state_names = ("h", "c")
    gates = LSTM_GATES
    num_gates = len(gates)
    bias_blocks = (num_gates,)

    def __init__(
        self,
        Wx: Array,
        Wh: Array,
        b: Array,
        *gating: Array,
        rounds: int = 5,
        rank: int | None = None,
    ) -> None:
        super().__init__(Wx, Wh, b)
        who = type(self).__name__
        if rounds < 0:
            raise ValueError(f"{who}: expected 0 rounds or more, got {rounds}")
        if rank is not None and rank < 1:
            raise ValueError(f"{who}: expected a rank of 1 or more, or None, got {rank}")
        shapes = gating_shapes(len(Wx), len(Wh), rounds, rank)
        names = tuple(name for name, _ in shapes)
        if len(gating) != len(names):
            raise ValueError(
                f"{who}: expected {len(names)} gating matrices ({', '.join(names)}), "
                f"got {len(gating)}"
            )
        for (name, shape), M in zip(shapes, gating, strict=True):
            self.expect_shape(name, M, *shape)
        self.rounds = rounds
        self.rank = rank
        self.lstm = LSTM(Wx, Wh, b)
        self.param_names += names
        self.params += gating
        self.grads = self.lstm.grads + [np.zeros_like(M) for M in gating]

    @classmethod
    def build(
        cls,
        D: int,
        H: int,
        rng: numpy.random.Generator,
        dtype: str,
        rounds: int = 5,
        rank: int | None = None,
    ) -> MogrifierLSTM:
        """Every matrix is normal with 1 / sqrt(rows); biases are zero."""
        Wx = normal(rng, (D, 4 * H), D**-0.5, dtype)
        Wh = normal(rng, (H, 4 * H), H**-0.5, dtype)
        shapes = [shape for _, shape in gating_shapes(D, H, rounds, rank)]
        gating = [normal(rng, shape, shape[0] ** -0.5, dtype) for shape in shapes]
        return cls(Wx, Wh, zeros(4 * H, dtype), *gating, rounds=rounds, rank=rank)

    def _factors(self) -> list[range]:
        """Where the one or two matrices of each round stand in ``params``."""
        step = 1 if self.rank is None else 2
        first = len(self.lstm.params)
        return [range(first + step * k, first + step * (k + 1)) for k in range(self.rounds)]

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """(N, D), (N, H), (N, H) -> h_next (N, H), c_next (N, H)."""
        Wx, Wh = self.params[:2]
        self.expect_shape("x", x, "N", len(Wx))
        self.expect_shape("h_prev", h_prev, len(x), len(Wh))
        self.expect_shape("c_prev", c_prev, len(x), len(Wh))
        source, target = h_prev, x
        rounds = []
        for factors in self._factors():
            ys = [source]
            for k in factors:
                ys.append(ys[-1] @ self.params[k])
            gate = 2 * sigmoid(ys.pop())
            rounds.append((ys, gate, target))
            source, target = gate * target, source  # what was gated is the next to gate
        x, h_prev = (source, target) if self.rounds % 2 else (target, source)
        h_next, c_next = self.lstm.forward(x, h_prev, c_prev)
        self.cache = (rounds, self.lstm.cache)
        return h_next, c_next

    def gate_values(self) -> dict[str, Array]:
        """f, g, i and o of the last step, each (N, H)."""
        return self.lstm.gate_values()

    def backward(self, dh_next: Array, dc_next: Array) -> tuple[Array, Array, Array]:
        """(N, H), (N, H) -> dx (N, D), dh_prev (N, H), dc_prev (N, H)."""
        rounds, self.lstm.cache = self.saved()
        dx, dh_prev, dc_prev = self.lstm.backward(dh_next, dc_next)
        dsource, dtarget = (dx, dh_prev) if self.rounds % 2 else (dh_prev, dx)
        for factors, (ys, gate, target) in zip(
            reversed(self._factors()), reversed(rounds), strict=True
        ):
            dgated, dsource = dsource, dtarget
            dgate, dtarget = dgated * target, dgated * gate
            dy = dgate * gate * (1 - gate / 2)
            for k, y in zip(reversed(factors), reversed(ys), strict=True):
                self.grads[k][...] = y.T @ dy
                dy = dy @ self.params[k].T
            dsource = dsource + dy
        dh_prev, dx = dsource, dtarget
        return dx, dh_prev, dc_prev
