"""Recurrent layers over T steps: TimeRNN, TimeLSTM, TimeGRU, TimeBiLSTM."""

from __future__ import annotations

from functools import partial

from common.layer import Layer, Recurrent
from common.layers import check_nonlinearity
from common.np import Array, np
from common.parallel import one_thread_if_small
from common.products import affine, product
from common.time_layers import gru_window, lstm_window
from common.time_layers.layout import batch_first, time_major
from common.workspace import Workspace, share_workspace


class _TimeRecurrent(Recurrent):
    """What TimeRNN, TimeLSTM and TimeGRU share: the products outside the time loop, the state.

    ``h`` is the state after the last step, ``dh`` the gradient of the window's first state.
    ``workspace`` may be shared with other layers; a model does that.
    """

    state_names: tuple[str, ...] = ("h",)

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.workspace = Workspace()
        self.h: Array | None = None
        self.dh: Array | None = None

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the state arrays, each (N, H); None where the next window begins from zeros."""
        if self.h is None or not self.stateful:
            return None
        return tuple(getattr(self, name).copy() for name in self.state_names)

    def set_state(self, h: Array, *more: Array) -> None:
        """Begin the next window from these arrays, each (N, H).

        Raises:
            ValueError: for a layer that is not stateful, or arrays of another shape.
        """
        if not self.stateful:
            raise ValueError(f"{type(self).__name__}: set_state needs a layer with stateful=True")
        _, Wh, _ = self.params
        for name, state in zip(self.state_names, (h, *more), strict=True):
            self.expect_shape(name, state, len(h), len(Wh))
            setattr(self, name, np.array(state, dtype=Wh.dtype))

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        for name in self.state_names:
            setattr(self, name, None)

    def _first_states(self, N: int) -> list[Array]:
        _, Wh, _ = self.params
        if self.h is None or not self.stateful:
            return [np.zeros((N, len(Wh)), dtype=Wh.dtype) for _ in self.state_names]
        if len(self.h) != N:
            raise ValueError(
                f"{type(self).__name__}: the state is kept for a batch of {len(self.h)}, "
                f"got a batch of {N}; call reset_state() first"
            )
        return [getattr(self, name) for name in self.state_names]

    def _begin(self, xs: Array) -> tuple[Array, Array]:
        """``xs`` with time first, and an empty array (T, N, kH) for the gates of every step."""
        Wx, _, _ = self.params
        self.expect_shape("xs", xs, "N", "T", len(Wx))
        self.cache = None  # the last window's memory, for this one
        xs = time_major(xs, Wx.dtype)
        T, N, _ = xs.shape
        return xs, np.empty((T, N, Wx.shape[1]), dtype=Wx.dtype)

    def _back_project(self, xs: Array, h_prevs: Array, dA: Array, dAh: Array) -> Array:
        """Write dWx, dWh and db, one product each; return dxs.

        ``dA`` (T, N, kH) is the gradient of xs Wx + b, ``dAh`` that of h_prev Wh.
        """
        Wx, _, _ = self.params
        dWx, dWh, db = self.grads
        T, N, D = xs.shape
        dA, dAh = dA.reshape(T * N, -1), dAh.reshape(T * N, -1)
        product(xs.reshape(T * N, D).T, dA, out=dWx)
        product(h_prevs.reshape(T * N, -1).T, dAh, out=dWh)
        db[: dA.shape[1]] = dA.sum(axis=0)
        return batch_first(product(dA, Wx.T).reshape(T, N, D))


class TimeRNN(_TimeRecurrent):
    """h[t] = tanh(x[t] Wx + h[t-1] Wh + b) over T steps; the cell is ``common.layers.RNN``.

    Args:
        Wx: (D, H).
        Wh: (H, H).
        b: (H,).
        stateful: carry the state from window to window.
        nonlinearity: "tanh", or "relu" in its place.

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
        xs, A = self._begin(xs)
        affine(xs, Wx, b, out=A)
        T, N, H = A.shape
        hs = np.empty((T + 1, N, H), dtype=A.dtype)
        (hs[0],) = self._first_states(N)
        activate = np.tanh if self.nonlinearity == "tanh" else partial(np.maximum, 0)
        with one_thread_if_small(hs[0], Wh):
            for t in range(T):
                A[t] += hs[t] @ Wh
                activate(A[t], out=hs[t + 1])
        self.h = hs[T].copy()
        self.cache = (xs, hs)
        return batch_first(hs[1:])

    def backward(self, dhs: Array) -> Array:
        """(N, T, H) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs = self.saved()
        (_, N, H), T = hs.shape, len(xs)
        self.expect_shape("dhs", dhs, N, T, H)
        dhs = time_major(dhs, hs.dtype)
        is_tanh = self.nonlinearity == "tanh"
        dA = 1 - hs[1:] ** 2 if is_tanh else (hs[1:] > 0).astype(hs.dtype)
        dh_next = np.zeros((N, H), dtype=hs.dtype)
        with one_thread_if_small(hs[0], Wh):
            for t in reversed(range(T)):
                dA[t] *= dhs[t] + dh_next
                dh_next = dA[t] @ Wh.T
        self.dh = dh_next
        return self._back_project(xs, hs[:T], dA, dA)


class TimeLSTM(_TimeRecurrent):
    """The LSTM over T steps; its equations stand at the cell, ``common.layers.LSTM``.

    Args:
        Wx: (D, 4H), gates in the order f, g, i, o.
        Wh: (H, 4H).
        b: (4H,).
        stateful: carry the state from window to window.

    ``h`` and ``c`` are the state after the last step, ``dh`` and ``dc`` the gradients of the
    window's first state.
    """

    num_gates = 4
    bias_blocks = (4,)
    state_names = ("h", "c")

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b, stateful)
        self.c: Array | None = None
        self.dc: Array | None = None

    def set_state(self, h: Array, c: Array | None = None) -> None:
        """Begin the next window from h and c, each (N, H); c is zero if not given.

        Raises:
            ValueError: for a layer that is not stateful, or arrays of another shape.
        """
        super().set_state(h, np.zeros_like(h) if c is None else c)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, b = self.params
        xs, gates = self._begin(xs)
        (T, N, _), H = gates.shape, len(Wh)
        hs = np.empty((T + 1, N, H), dtype=gates.dtype)
        cs = np.empty_like(hs)
        hs[0], cs[0] = self._first_states(N)
        self.workspace.begin()
        lstm_window.forward_window(xs, Wx, Wh, b, gates, hs, cs, self.workspace)
        self.h, self.c = hs[T].copy(), cs[T].copy()
        self.cache = (xs, hs, cs, gates)
        return batch_first(hs[1:])

    def backward(self, dhs: Array, dc_next: Array | None = None) -> Array:
        """(N, T, H), and (N, H) for c after the last step (None: unused) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs, cs, gates = self.saved()
        (T, N, _), H = gates.shape, len(Wh)
        self.expect_shape("dhs", dhs, N, T, H)
        dhs = time_major(dhs, hs.dtype)

        dh = np.zeros((N, H), dtype=hs.dtype)
        dc = np.zeros_like(dh) if dc_next is None else np.array(dc_next, dtype=hs.dtype)
        self.expect_shape("dc_next", dc, N, H)
        self.workspace.begin()
        dA = self.workspace.empty(gates.shape, gates.dtype)
        lstm_window.backward_window(Wh, gates, cs, dhs, dh, dc, dA, self.workspace)
        self.dh, self.dc = dh, dc
        return self._back_project(xs, hs[:T], dA, dA)


class TimeGRU(_TimeRecurrent):
    """The GRU over T steps; its equations stand at the cell, ``common.layers.GRU``.

    Args:
        Wx: (D, 3H), gates in the order r, z, n.
        Wh: (H, 3H).
        b: (3H,), or (4H,) with the candidate's own recurrent bias last.
        stateful: carry the state from window to window.
    """

    num_gates = 3
    bias_blocks = (3, 4)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, b = self.params
        xs, gates = self._begin(xs)
        (T, N, _), H = gates.shape, len(Wh)
        bhn = b[3 * H :] if len(b) == 4 * H else np.zeros(H, dtype=b.dtype)
        hs = np.empty((T + 1, N, H), dtype=gates.dtype)
        hns = np.empty_like(hs[1:])
        (hs[0],) = self._first_states(N)
        self.workspace.begin()
        gru_window.forward_window(xs, Wx, Wh, b[: 3 * H], bhn, gates, hs, hns, self.workspace)
        self.h = hs[T].copy()
        self.cache = (xs, hs, hns, gates)
        return batch_first(hs[1:])

    def backward(self, dhs: Array) -> Array:
        """(N, T, H) -> dxs (N, T, D)."""
        _, Wh, _ = self.params
        xs, hs, hns, gates = self.saved()
        T, N, H = hns.shape
        self.expect_shape("dhs", dhs, N, T, H)
        dhs = time_major(dhs, hs.dtype)

        dh = np.zeros((N, H), dtype=hs.dtype)
        self.workspace.begin()
        dA, dAh = (self.workspace.empty(gates.shape, gates.dtype) for _ in range(2))
        gru_window.backward_window(Wh, gates, hs, hns, dhs, dh, dA, dAh, self.workspace)
        self.dh = dh
        db_hn = self.grads[2][3 * H :]
        if len(db_hn):
            db_hn[...] = dAh[..., 2 * H :].sum(axis=(0, 1))
        return self._back_project(xs, hs[:T], dA, dAh)


RecurrentLayer = TimeRNN | TimeLSTM | TimeGRU


class TimeBidirectional(Layer):
    """One layer reads from the left, one from the right; at each step their states side by side.

    Schuster and Paliwal (1997).

    Args:
        left: the recurrent time layer that reads forwards.
        right: another of the same kind and size, which reads backwards.
    """

    def __init__(self, left: RecurrentLayer, right: RecurrentLayer) -> None:
        super().__init__()
        self.left, self.right = left, right
        share_workspace([left, right])
        self.stateful = left.stateful
        self.params = left.params + right.params
        self.grads = left.grads + right.grads
        self.param_names = tuple(f"{name}{k}" for k in (1, 2) for name in left.param_names)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> (N, T, 2H)."""
        self.expect_shape("xs", xs, "N", "T", len(self.params[0]))
        from_left = self.left.forward(xs)
        from_right = self.right.forward(xs[:, ::-1])[:, ::-1]
        hs = np.concatenate([from_left, from_right], axis=2)
        self.cache = (hs.shape,)
        return hs

    def backward(self, dhs: Array, *dc_next: Array) -> Array:
        """(N, T, 2H), of two LSTMs also the c of each after its last step -> dxs (N, T, D)."""
        (shape,) = self.saved()
        self.expect_shape("dhs", dhs, *shape)
        H = shape[2] // 2
        dxs = self.left.backward(dhs[:, :, :H], *dc_next[:1])
        return dxs + self.right.backward(dhs[:, ::-1, H:], *dc_next[1:])[:, ::-1]

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.left.reset_state()
        self.right.reset_state()

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the states from the left, then from the right; None before the first window."""
        left, right = self.left.get_state(), self.right.get_state()
        return None if left is None or right is None else left + right

    def set_state(self, *state: Array) -> None:
        """Begin the next window from what ``get_state`` returned, each (N, H)."""
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
