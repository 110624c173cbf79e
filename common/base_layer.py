"""What every layer has: parameters, gradients, a cache, a state, and checks that name the layer.

Layers meet at (N, T, ·), batch first. Inside a time layer time comes first (:func:`time_major`):
the memory of one step is then contiguous, and what one layer hands to the next needs no copy.

Shapes: N batch, T time steps, D input width, H hidden width, k gates.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from common import kernels
from common.np import Array, Scalar, np

__all__ = [
    "GRU_GATES",
    "LSTM_GATES",
    "TORCH_LSTM_GATES",
    "KeptState",
    "Layer",
    "Recurrent",
    "TimeRecurrent",
    "batch_first",
    "check_ratio",
    "check_sizes",
    "normal",
    "read_only",
    "reorder_gates",
    "seed_of",
    "split_gates",
    "time_major",
    "uniform",
    "zeros",
]

# The order of the gates in one (·, kH) matrix. LSTM: forget, candidate, input, output.
# GRU: reset, update, candidate. PyTorch stores i, f, g, o for its LSTM and r, z, n for its GRU.
LSTM_GATES = "fgio"
GRU_GATES = "rzn"
TORCH_LSTM_GATES = "ifgo"


class Layer:
    """Base of all layers: ``params`` and ``grads`` are parallel lists.

    ``forward`` leaves in ``cache`` what ``backward`` needs. ``backward`` writes into the arrays
    in ``grads`` and changes neither the cache nor the gradient it was given, so calling it
    twice gives the same answer twice.

    Attributes:
        param_names: a name for each parameter.
        state_names: a name for each state that is carried from step to step; none for most layers.
        recurrent_weights: names of the parameters that weight drop drops.
        gates: a letter for each block of H columns in the matrices of a gated cell.
        train_flg: whether ``forward`` is one of training, with dropout; a model sets it, and a
            layer hands it to the layers inside it.
        penalty: what the layer adds to the loss of a language model, a scalar.
        dout: the gradient of that loss, which scales the penalty's; a model sets it.
        sampling: whether the loss that a training pass returns is that of a sample of the classes.
        constants: arrays by name that belong to the weights and are not trained. They are saved
            and loaded with them, in place.
        reads_ids_on_host: whether the layer looks at ids, and would wait for those on a device.
        workspace: memory that the layers of a model use in turns, where the layer needs any.
        gradient_like: makes what ``backward`` writes the gradient of a parameter into, zeros.

    Raises:
        TypeError: for a parameter that is not an array.
    """

    param_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    recurrent_weights: tuple[str, ...] = ()
    gates: str = ""
    stateful: bool = False
    train_flg: bool = True
    penalty: Scalar = 0.0
    dout: float = 1.0
    sampling: bool = False
    constants: Mapping[str, Array] = {}
    reads_ids_on_host: bool = False
    workspace: kernels.Workspace | None = None
    gradient_like: Callable[[Array], Any] = staticmethod(lambda param: np.zeros_like(param))
    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __init__(self, *params: Array) -> None:
        if kinds := {type(param).__name__ for param in params if not hasattr(param, "shape")}:
            raise TypeError(f"{type(self).__name__}: expected arrays, got a {kinds.pop()}")
        self.params: list[Array] = list(params)
        self.grads: list[Any] = [self.gradient_like(p) for p in params]
        self.cache: tuple | None = None

    def __repr__(self) -> str:
        names = self.param_names or tuple(map(str, range(len(self.params))))
        shapes = [f"{name} {p.shape}" for name, p in zip(names, self.params, strict=True)]
        return f"{type(self).__name__}({', '.join(shapes)})"

    @property
    def kind(self) -> str:
        """What a weight file calls the layer: its class without ``Time``, in lower case."""
        return type(self).__name__.removeprefix("Time").lower()

    def saved(self) -> tuple:
        """What ``forward`` cached.

        Raises:
            RuntimeError: before a forward pass in training mode.
        """
        if self.cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no forward pass in training mode "
                "to go back through; call forward first"
            )
        return self.cache

    def reset_state(self) -> None:
        """Begin the next window from zeros; nothing to do for a layer without a state."""

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the state; None where the next window begins from zeros."""
        return None

    def set_state(self, *state: Array) -> None:
        """Begin the next window from ``state``.

        Raises:
            TypeError: for a layer without a state.
        """
        raise TypeError(f"{type(self).__name__}: a layer without a state cannot be given one")

    def expect_shape(self, name: str, x: Array, *shape: int | str) -> None:
        """Compare ``x.shape`` with numbers that must hold and letters for sizes of 1 or more.

        Raises:
            ValueError: ``TimeLSTM: expected xs of shape (N, T, 650), got (20, 35, 100)``.
        """
        if len(shape) == x.ndim:
            for want, got in zip(shape, x.shape, strict=True):
                if want != got and (got == 0 or not isinstance(want, str)):
                    break
            else:
                return
        wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{type(self).__name__}: expected {name} of shape {wanted}, got {x.shape}")

    def expect_ids(self, name: str, ids: Array, size: int) -> None:
        """Check that integer ids lie in 0 .. ``size - 1``, before they go to a device.

        What is there already is not looked at: that would wait for the device.

        Raises:
            TypeError: where the ids are not integers.
            ValueError: where one is out of range (NumPy would wrap a negative one silently).
        """
        if ids.dtype.kind not in "iu":
            raise TypeError(f"{type(self).__name__}: expected {name} of integers, got {ids.dtype}")
        if isinstance(ids, numpy.ndarray) and ids.size:
            if ids.size == 1:  # a token that is generated; each pass would take a microsecond
                low = high = ids.item()
            else:
                low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= size:
                raise ValueError(
                    f"{type(self).__name__}: expected {name} in 0..{size - 1}, "
                    f"got {low if low < 0 else high}"
                )

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made of: everything but what ``backward`` would need.

        That may be large, and may point into the compiled kernels.
        """
        return {**vars(self), "cache": None}

    def gate_values(self) -> dict[str, Array]:
        """What each of the ``gates`` was in the last ``forward``, by its letter.

        (N, H) of one step, (N, T, H) of a window; nothing of a layer that has none or does not
        tell.

        Raises:
            RuntimeError: before a forward pass, where there are gates.
        """
        return {}

    def sublayers(self) -> Iterator[Layer]:
        """The layer itself and every layer that it holds, once for each attribute that holds it."""
        yield self
        for value in vars(self).values():
            for part in value if isinstance(value, list | tuple) else (value,):
                if isinstance(part, Layer):
                    yield from part.sublayers()


class Recurrent(Layer):
    """Base of layers and cells with Wx (D, kH), Wh (H, kH) and b (kH,), for k gates.

    Attributes:
        num_gates: k, the number of blocks of H columns in Wx and Wh.
        bias_blocks: how many blocks of H the bias may have.

    Raises:
        ValueError: for parameters of other shapes.
    """

    param_names: tuple[str, ...] = ("Wx", "Wh", "b")
    state_names: tuple[str, ...] = ("h",)
    num_gates: int = 1
    bias_blocks: tuple[int, ...] = (1,)
    recurrent_weights = ("Wh",)

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        super().__init__(Wx, Wh, b)
        H, k = len(Wh), self.num_gates
        self.expect_shape("Wx", Wx, "D", k * H)
        self.expect_shape("Wh", Wh, H, k * H)
        if b.shape not in [(blocks * H,) for blocks in self.bias_blocks]:
            self.expect_shape("b", b, k * H)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state; the first is the output."""
        return (len(self.params[1]),) * len(self.state_names)

    @classmethod
    def build(cls, D: int, H: int, rng: numpy.random.Generator, dtype: str) -> Recurrent:
        """A layer whose Wx is normal with 1 / sqrt(D), Wh with 1 / sqrt(H); biases are zero."""
        width = cls.num_gates * H
        Wx = normal(rng, (D, width), D**-0.5, dtype)
        Wh = normal(rng, (H, width), H**-0.5, dtype)
        return cls(Wx, Wh, zeros(width, dtype))


class KeptState(Layer, ABC):
    """A time layer whose state is carried from one window to the next while ``stateful``.

    The gradient stops at the window's edge: truncated backpropagation through time, Williams and
    Peng (1990).

    Attributes:
        stateful: whether a window begins where the last one ended; if not, from zeros.
        state: the states after the last step, each (N, its width); None before the first window.
        dstate: the gradients of the states from which the window began, after ``backward``.

    ``h`` and ``c`` are the first state and the second, ``dh`` and ``dc`` their gradients.
    """

    state: tuple[Array, ...] | None = None
    dstate: tuple[Array, ...] | None = None

    @property
    @abstractmethod
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state; the first is the output."""

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the states; None where the next window begins from zeros."""
        if self.state is None or not self.stateful:
            return None
        return tuple(array.copy() for array in self.state)

    def set_state(self, *state: Array | None) -> None:
        """Begin the next window from ``state``, each (N, its width); what is not given is zero.

        A state that is None is not given; where all are, the next window begins from zeros.

        Raises:
            TypeError: for no state, or more than the layer has.
            ValueError: for a layer that is not stateful, or arrays of another shape.
        """
        who, names = type(self).__name__, self.state_names
        if not self.stateful:
            raise ValueError(f"{who}: set_state needs a layer with stateful=True")
        if not 0 < len(state) <= len(names):
            raise TypeError(
                f"{who}.set_state: expected the states {', '.join(names)}, got {len(state)}"
            )
        N = next((len(array) for array in state if array is not None), 0)
        kept = self._zero_states(N)
        for name, array, own in zip(names, state, kept, strict=False):
            if array is not None:
                self.expect_shape(name, array, *own.shape)
                own[...] = np.asarray(array)
        self.state = tuple(kept) if N else None

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.state = None

    def first_states(self, N: int) -> list[Array]:
        """The states from which a window of N sequences begins.

        Raises:
            ValueError: where the state is kept for another number of sequences.
        """
        if self.state is None or not self.stateful:
            return self._zero_states(N)
        if len(self.state[0]) != N:
            raise ValueError(
                f"{type(self).__name__}: the state is kept for a batch of {len(self.state[0])}, "
                f"got a batch of {N}; call reset_state() first"
            )
        return list(self.state)

    def last_dstates(self, N: int, dstates: Sequence[Array | None]) -> list[Array]:
        """The gradients of the states after a window of N sequences, in arrays of their own.

        That of the first state is zero: what reaches it comes with the output's.

        Args:
            N: batch.
            dstates: of each state after the first, (N, its width), or None for zeros.
        """
        own = self._zero_states(N)
        for name, given, kept in zip(self.state_names[1:], dstates, own[1:], strict=False):
            if given is not None:
                self.expect_shape(f"d{name}_next", given, *kept.shape)
                kept[...] = given
        return own

    @property
    def dtype(self) -> Any:
        """What the layer computes in: the dtype of its parameters."""
        return self.params[0].dtype if self.params else np.dtype("float32")

    def _zero_states(self, N: int) -> list[Array]:
        return [np.zeros((N, size), dtype=self.dtype) for size in self.state_sizes]

    def _state_at(self, name: str, k: int) -> Array | None:
        if k >= len(self.state_names):
            raise AttributeError(f"{type(self).__name__} has no second state")
        arrays: tuple[Array, ...] | None = getattr(self, name)
        return None if arrays is None else arrays[k]

    def _put_state(self, k: int, array: Array | None) -> None:
        if array is None:
            self.state = None
            return
        states = list(self.state or self._zero_states(len(array)))
        self.expect_shape(self.state_names[k], array, len(states[0]), self.state_sizes[k])
        states[k] = np.array(array, dtype=self.dtype)
        self.state = tuple(states)

    @property
    def h(self) -> Array | None:
        """The first state, (N, H): the output of the last step."""
        return self._state_at("state", 0)

    @h.setter
    def h(self, array: Array | None) -> None:
        self._put_state(0, array)

    @property
    def c(self) -> Array | None:
        """The second state, of an LSTM its cell (N, H)."""
        return self._state_at("state", 1)

    @c.setter
    def c(self, array: Array | None) -> None:
        self._put_state(1, array)

    @property
    def dh(self) -> Array | None:
        """The gradient of the first state before the window."""
        return self._state_at("dstate", 0)

    @property
    def dc(self) -> Array | None:
        """The gradient of the second state before the window."""
        return self._state_at("dstate", 1)


class TimeRecurrent(Recurrent, KeptState):
    """Base of TimeRNN, TimeLSTM and TimeGRU: the products that stand outside the time loop.

    x Wx + b for all steps is one product before the loop; dWx, dWh, db and dx are one each
    after it.
    """

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.stateful = stateful
        self.workspace: kernels.Workspace = kernels.Workspace()

    def gate_values(self) -> dict[str, Array]:
        """Each gate of the last window by its letter, (N, T, H)."""
        if not self.gates:
            return {}
        *_, gates = self.saved()
        return dict(zip(self.gates, split_gates(batch_first(gates), self.gates), strict=True))

    def begin(self, xs: Array) -> tuple[Array, Array]:
        """``xs`` (N, T, D) with time first, and room (T, N, kH) for the gates of every step."""
        Wx, _, _ = self.params
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", len(Wx))
        self.cache = None  # the last window's memory, for this one
        xs = time_major(xs, Wx.dtype)
        T, N, _ = xs.shape
        self.workspace.begin()
        return xs, np.empty((T, N, Wx.shape[1]), dtype=Wx.dtype)

    def begin_backward(
        self, dhs: Array, shape: tuple[int, ...], *dstates: Array | None
    ) -> list[Array]:
        """``dhs`` (N, T, H) with time first, then copies of the gradients of the last states.

        Args:
            dhs: the gradient of the output.
            shape: (T, N, H).
            dstates: of each state after the first, (N, H) or None for zeros.
        """
        T, N, H = shape
        self.expect_shape("dhs", dhs, N, T, H)
        states = self.last_dstates(N, dstates)
        self.workspace.begin()
        return [time_major(dhs, self.dtype), *states]

    def back_project(self, xs: Array, h_prevs: Array, dA: Array, dAh: Array) -> Array:
        """Write dWx, dWh and db, one product each; return dxs (N, T, D).

        ``dA`` (T, N, kH) is the gradient of xs Wx + b, ``dAh`` that of h_prev Wh.
        """
        Wx, _, _ = self.params
        dWx, dWh, db = self.grads
        T, N, D = xs.shape
        dA, dAh = dA.reshape(T * N, -1), dAh.reshape(T * N, -1)
        kernels.product(xs.reshape(T * N, D).T, dA, out=dWx)
        kernels.product(h_prevs.reshape(T * N, -1).T, dAh, out=dWh)
        db[: dA.shape[1]] = dA.sum(axis=0)
        return batch_first(kernels.product(dA, Wx.T).reshape(T, N, D))


def time_major(xs: Array, dtype: Any = None) -> Array:
    """(N, T, ·) -> (T, N, ·), contiguous; no copy where :func:`batch_first` made ``xs``."""
    # What is on the host goes over first: CuPy makes contiguous only what is on the device.
    return np.ascontiguousarray(np.asarray(xs).swapaxes(0, 1), dtype=dtype)


def batch_first(xs: Array) -> Array:
    """(T, N, ·) -> (N, T, ·), a view."""
    return xs.swapaxes(0, 1)


def read_only(ys: Array) -> Array:
    """A view of an output that ``backward`` reads again, which NumPy refuses to change in place."""
    if isinstance(ys, numpy.ndarray):
        ys = ys.view()
        ys.flags.writeable = False
    return ys


def split_gates(A: Array, gates: str = LSTM_GATES) -> tuple[Array, ...]:
    """Views (·, H) of the gate blocks of ``A`` (·, kH), in the project's order."""
    H = A.shape[-1] // len(gates)
    return tuple(A[..., k * H : (k + 1) * H] for k in range(len(gates)))


def reorder_gates(A: Array, source: str, target: str) -> Array:
    """Copy of ``A`` (·, kH) with its gate blocks moved from order ``source`` to ``target``.

    Raises:
        ValueError: where the two orders do not name the same gates, or kH is not divisible by k.
    """
    if sorted(source) != sorted(target) or A.shape[-1] % len(source):
        raise ValueError(
            f"reorder_gates: cannot take {A.shape} from order {source!r} to {target!r}"
        )
    block = dict(zip(source, split_gates(A, source), strict=True))
    return np.concatenate([block[gate] for gate in target], axis=-1)


def normal(rng: numpy.random.Generator, shape: tuple[int, ...], scale: float, dtype: str) -> Array:
    """Normal random weights, drawn on the CPU so that every device begins at the same numbers.

    Drawn in float64 a few rows at a time, so that twice the memory is not needed in passing.
    """
    weights = numpy.empty(shape, dtype=dtype)
    for rows in numpy.array_split(weights, max(1, weights.size >> 16)):  # 512 KiB of float64 each
        rows[...] = scale * rng.standard_normal(rows.shape)
    return np.asarray(weights)


def uniform(rng: numpy.random.Generator, H: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Weights from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch begins its RNNs; drawn on the CPU."""
    return np.asarray(rng.uniform(-(H**-0.5), H**-0.5, shape).astype(dtype))


def seed_of(rng: numpy.random.Generator) -> int:
    """64 bits from what ``rng`` was seeded with, however much it has drawn since."""
    return int(rng.bit_generator.seed_seq.generate_state(1, numpy.uint64)[0])


def zeros(size: int, dtype: str) -> Array:
    """A bias of zeros (size,)."""
    return np.zeros(size, dtype=dtype)


def check_sizes(who: str, least: int = 1, **sizes: int | None) -> None:
    """Raise ValueError for a size below ``least`` or above any array's; None is no size."""
    for name, size in sizes.items():
        if size is not None and not least <= size <= sys.maxsize:
            most = "" if size < least else f", {sys.maxsize} at most"
            raise ValueError(f"{who}: expected {name} of {least} or more{most}, got {size}")


def check_ratio(who: str, ratio: float) -> float:
    """``ratio`` if it is a probability of dropping that leaves something.

    Raises:
        ValueError: outside 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"{who}: expected a dropout ratio in [0, 1), got {ratio}")
    return ratio
