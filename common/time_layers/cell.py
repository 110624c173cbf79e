"""Any one-step cell over T steps, and the cells that are found by name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from common import cells
from common.base_layer import KeptState, Layer, Recurrent, batch_first, time_major, uniform
from common.np import Array, np
from common.time_layers.gru import TimeGRU
from common.time_layers.lstm import TimeLSTM
from common.time_layers.rnn import TimeRNN

__all__ = ["TimeCell", "cell_named", "cell_names", "cells_by_name", "time_layer", "uniform_cell"]

# The cells whose time layers have a window of their own.
WINDOWS: dict[str, Any] = {"rnn": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}


class TimeCell(KeptState):
    """Runs ``cell`` over T steps, step by step, with stateful truncated backpropagation.

    A cell is a :class:`common.base_layer.Layer`, with any number of parameters of any shape, that
    has

        state_sizes            the width of each state; the first state is the output
        forward(x, *states)    (N, D) and states (N, width) -> the next state, or a tuple of them
        backward(*dstates)     writes the gradients of this step; returns dx, *dstates

    What ``forward`` keeps for ``backward``, in ``cache`` or in other attributes, is set aside for
    every step, that of layers inside the cell too. Keep new arrays there, not buffers that the
    next step overwrites.

    Args:
        cell: the cell; its ``params`` and ``grads`` are those of the time layer.
        stateful: carry the states from window to window.

    Raises:
        TypeError: for something that is not a cell.
    """

    def __init__(self, cell: Any, stateful: bool = False) -> None:
        super().__init__()
        missing = [
            name
            for name in ("state_sizes", "forward", "backward", "params", "grads")
            if not hasattr(cell, name)
        ]
        if missing or isinstance(cell, KeptState | type):
            what = cell.__name__ if isinstance(cell, type) else type(cell).__name__
            why = f" without {', '.join(missing)}" if missing else ""
            raise TypeError(
                f"TimeCell: expected a cell, a layer of one step with state_sizes, got {what}{why}"
            )
        self.cell = cell
        self.stateful = stateful
        self.params, self.grads = cell.params, cell.grads
        self.param_names = tuple(getattr(cell, "param_names", ()))
        self.gates = getattr(cell, "gates", "")
        self.recurrent_weights = tuple(getattr(cell, "recurrent_weights", ()))
        names = tuple(getattr(cell, "state_names", ()))
        count = len(self.state_sizes)
        self.state_names = (
            names if len(names) == count else ("h", "c", *map(str, range(count)))[:count]
        )
        self._layers = list(cell.sublayers()) if isinstance(cell, Layer) else [cell]

    def __repr__(self) -> str:
        return f"TimeCell({self.cell!r})"

    @property
    def kind(self) -> str:
        """The name of the cell's class, in lower case."""
        return type(self.cell).__name__.lower()

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state; the first is the output."""
        return tuple(self.cell.state_sizes)

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> the first state of every step, (N, T, H)."""
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", "D")
        self.cache = None
        xs = time_major(xs, self.dtype)
        T, N, _ = xs.shape
        states = tuple(self.first_states(N))
        hs = np.empty((T, *states[0].shape), dtype=self.dtype)
        steps = []
        for layer in self._layers:
            layer.train_flg = self.train_flg
        for t in range(T):
            states = self._as_states(self.cell.forward(xs[t], *states), N)
            hs[t] = states[0]
            steps.append([dict(vars(layer)) for layer in self._layers])
        self.state = tuple(state.copy() for state in states)
        self.cache = (xs.shape, steps)
        return batch_first(hs)

    def backward(self, dhs: Array, *dstates: Array | None) -> Array:
        """Go back from the last step to the first.

        Args:
            dhs: (N, T, H).
            dstates: gradients of the states after the last step, but the first state, each
                (N, its width); what is None or not given is not used.

        Returns:
            dxs (N, T, D).

        Raises:
            TypeError: for more gradients than there are states.
        """
        (T, N, D), steps = self.saved()
        self.expect_shape("dhs", dhs, N, T, self.state_sizes[0])
        dhs = time_major(dhs, self.dtype)
        if len(dstates) >= len(self.state_names):
            raise TypeError(
                f"TimeCell.backward: expected gradients of {len(self.state_names) - 1} states at "
                f"most besides the output's, got {len(dstates)}"
            )
        ds = self.last_dstates(N, dstates)
        totals = [np.zeros_like(grad) for grad in self.grads]
        dxs = np.empty((T, N, D), dtype=self.dtype)
        for t in reversed(range(T)):
            self._recall(steps[t])
            dxs[t], *ds = self.cell.backward(ds[0] + dhs[t], *ds[1:])
            for total, grad in zip(totals, self.grads, strict=True):
                total += grad
        for total, grad in zip(totals, self.grads, strict=True):
            grad[...] = total
        self.dstate = tuple(ds)
        return batch_first(dxs)

    def gate_values(self) -> dict[str, Array]:
        """Each gate of the last window by its letter, (N, T, H); none of a cell that tells none."""
        if not isinstance(self.cell, Layer):
            return {}
        _, steps = self.saved()
        by_step = []
        for kept in steps:
            self._recall(kept)
            by_step.append(self.cell.gate_values())
        return {gate: np.stack([at[gate] for at in by_step], axis=1) for gate in by_step[0]}

    def _recall(self, kept: list[dict[str, Any]]) -> None:
        """Give the cell and the layers inside it what one step has left in them."""
        for layer, own in zip(self._layers, kept, strict=True):
            vars(layer).update(own)

    def _as_states(self, returned: Any, N: int) -> tuple[Array, ...]:
        """What the cell returned, if it is one array (N, width) for each of its states."""
        states = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
        shapes = [state.shape for state in states]
        expected = [(N, size) for size in self.state_sizes]
        if shapes != expected:
            raise ValueError(
                f"{type(self.cell).__name__}: expected forward to return states of shapes "
                f"{expected}, as state_sizes says, got {shapes}"
            )
        return states


def cell_names() -> list[str]:
    """What ``--cell`` and ``cell=`` accept as a name; no file is imported.

    The names are "rnn", "lstm", "gru" and those of the files in ``common/cells``: a new file there
    is found without being listed.
    """
    return [*WINDOWS, *(file.name for file in pkgutil.iter_modules(cells.__path__))]


def cells_by_name() -> dict[str, Any]:
    """A time layer or a cell for each of :func:`cell_names`.

    Raises:
        ValueError: for a file that cannot be imported, or that does not hold exactly one cell.
    """
    return {name: cell_named(name) for name in cell_names()}


def cell_named(name: str) -> Any:
    """The time layer or cell of that name; ``module:Class`` names one of your own.

    No other cell's file is imported.

    Raises:
        ValueError: for a name that is not known; lists those that are. For a file that cannot be
            imported, or that does not hold exactly one cell.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            return getattr(_imported(module, f"cell {name!r}"), attribute)
        except AttributeError as error:
            raise ValueError(f"cell {name!r}: it cannot be imported ({error})") from error
    if name in WINDOWS:
        return WINDOWS[name]
    if name not in (names := cell_names()):
        raise ValueError(
            f"cell {name!r}: expected {', '.join(names)}, or module:Class for your own"
        )
    return _cell_of_file(name)


def _cell_of_file(name: str) -> type[Layer]:
    """The one cell in ``common/cells/NAME.py``."""
    file = f"common/cells/{name}.py"
    module = _imported(f"{cells.__name__}.{name}", file)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Layer)
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        found = ", ".join(each.__name__ for each in classes) or "none"
        raise ValueError(f"{file}: expected one cell, a class derived from Layer, got {found}")
    return classes[0]


def _imported(module: str, who: str) -> ModuleType:
    """That module; whatever its code raises becomes one line that begins with ``who``."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{who}: it cannot be imported ({why})") from error


def time_layer(cell: Any, D: int, H: int, rng: Any, dtype: str) -> KeptState:
    """A time layer of that cell with its initial weights.

    Args:
        cell: a name of :func:`cell_names`, a time layer such as TimeLSTM, a cell with ``build``,
            or any function (D, H, rng, dtype) that makes a time layer or a cell.
        D: input width.
        H: width of the output.
        rng: a NumPy generator that draws the weights.
        dtype: of the weights.

    Raises:
        ValueError: for a name that is not known, or that is not one of a cell.
    """
    if isinstance(cell, str):
        try:
            return time_layer(cell_named(cell), D, H, rng, dtype)
        except TypeError as error:  # any module:Class may have been named, such as one for a layer
            raise ValueError(f"cell {cell!r}: {error}") from error
    made = getattr(cell, "build", cell)(D, H, rng, dtype)
    return made if isinstance(made, KeptState) else TimeCell(made)


def uniform_cell(cell: Any, k: int | None = None) -> Any:
    """``cell`` for :func:`time_layer`, with the initial weights that PyTorch gives its cells.

    Wx, Wh and b are drawn from U(-1/sqrt(k), 1/sqrt(k)). A cell with a ``build`` of its own keeps
    the initial weights that it chooses there.

    Args:
        cell: as for :func:`time_layer`.
        k: H if None.

    Raises:
        ValueError: for a name that is not known.
    """
    kind = cell_named(cell) if isinstance(cell, str) else cell
    if not (isinstance(kind, type) and issubclass(kind, Recurrent)):
        return kind
    if next(base for base in kind.__mro__ if "build" in vars(base)) is not Recurrent:
        return kind

    def build(D: int, H: int, rng: Any, dtype: str) -> Layer:
        width = kind.num_gates * H
        shapes = (D, width), (H, width), (width,)
        return kind(*(uniform(rng, k or H, shape, dtype) for shape in shapes))

    return build
