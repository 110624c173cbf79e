"""Recurrent layers on top of each other, with the options of a library's RNN."""

from __future__ import annotations

from typing import Any

import numpy

from common import kernels
from common.base_layer import (
    KeptState,
    Layer,
    TimeRecurrent,
    check_ratio,
    check_sizes,
    uniform,
)
from common.np import Array, np
from common.time_layers.bidirectional import TimeBidirectional
from common.time_layers.cell import cell_named, time_layer
from common.time_layers.dropout import TimeDropout
from common.time_layers.rnn import TimeRNN

States = tuple[Array, ...]


class TimeStack(Layer):
    """L recurrent layers, each of which reads what the one below puts out.

    Schmidhuber (1992), El Hihi and Bengio (1995); dropout as in Zaremba et al. (2014). Options,
    states, and the initial weights of "rnn", "lstm" and "gru", are those of PyTorch's ``nn.RNN``,
    ``nn.LSTM`` and ``nn.GRU``. All h stand in one array (L * directions, N, H), layer by layer, the
    left before the right; so does every other state.

    Args:
        input_size: D.
        hidden_size: H.
        num_layers: L.
        cell: a name such as "rnn", "lstm" or "gru", a time layer, or a cell
            (``common.time_layers.time_layer``); the candidate of "gru" has a recurrent bias.
        nonlinearity: "tanh" or "relu", for "rnn" only.
        bias: whether there are biases, and gradients of them; False for "rnn", "lstm" and "gru"
            only.
        dropout: probability of dropping what one layer hands to the next.
        bidirectional: two directions in each layer, one from the left and one from the right.
        stateful: carry the states from window to window.
        rng: draws the initial weights and gives the masks their seed; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    Attributes:
        state: the states after the last step, (h,) or of an LSTM (h, c), each (L * directions, N,
            H).
        dstate: the gradients of the states from which the window began, after ``backward``.

    Raises:
        ValueError: for a size below 1, a ratio outside [0, 1), dropout where there is one layer, or
            a name that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: Any = "rnn",
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        stateful: bool = False,
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_sizes(who, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if isinstance(cell, str):
            try:
                cell = cell_named(cell)
            except ValueError as error:
                raise ValueError(f"{who}: {error}") from None
        if cell is not TimeRNN and nonlinearity != "tanh":
            raise ValueError(f"{who}: nonlinearity {nonlinearity!r} is for cell 'rnn' only")
        if not (bias or (isinstance(cell, type) and issubclass(cell, TimeRecurrent))):
            raise ValueError(f"{who}: bias=False is for cells 'rnn', 'lstm' and 'gru' only")
        if check_ratio(who, dropout) and num_layers == 1:
            raise ValueError(
                f"{who}: dropout {dropout} is between layers, and there is only one; "
                "put a TimeDropout behind it"
            )
        rng = numpy.random.default_rng(rng)
        self.stateful = stateful
        self.hidden_size = hidden_size
        self.directions = 2 if bidirectional else 1

        options: dict[str, Any] = {"nonlinearity": nonlinearity} if cell is TimeRNN else {}
        widths = [input_size] + [self.directions * hidden_size] * (num_layers - 1)
        names: list[str] = []
        self.one_way: list[KeptState] = []  # every layer in each direction, as in the states
        for l, D in enumerate(widths):
            for suffix in (f"_l{l}", f"_l{l}_reverse")[: self.directions]:
                layer = _one_way_layer(cell, D, hidden_size, bias, rng, dtype, options)
                layer.stateful = True
                for name, param, grad in zip(
                    layer.param_names, layer.params, layer.grads, strict=True
                ):
                    if bias or name != "b":
                        names.append(name + suffix)
                        self.params.append(param)
                        self.grads.append(grad)
                self.one_way.append(layer)
        self.param_names = tuple(names)
        self.state_names = self.one_way[0].state_names
        self.state: States | None = None
        self.dstate: States | None = None
        sides = zip(self.one_way[::2], self.one_way[1::2], strict=False)
        self.layers: list[Any] = (
            [TimeBidirectional(*p) for p in sides] if bidirectional else list(self.one_way)
        )
        kernels.share_workspace(self.one_way)
        self.dropouts = [TimeDropout(dropout, rng=rng) for _ in widths[1:]] if dropout else []

    def forward(self, xs: Array, state: States | None = None) -> Array:
        """Run every layer over all steps; ``state`` then has the states after the last.

        Args:
            xs: (N, T, D).
            state: where to begin, (h,) or for an LSTM (h, c), each (L * directions, N, H). If None:
                from the kept state of a stateful stack, else from zeros.

        Returns:
            The outputs of the last layer (N, T, H * directions).
        """
        xs = np.asarray(xs)
        self.expect_shape("xs", xs, "N", "T", "D")
        if state is not None:
            self._set_states(state, len(xs))
        elif not self.stateful:
            self.reset_state()
        for layer in [*self.layers, *self.dropouts]:
            layer.train_flg = self.train_flg
        for k, layer in enumerate(self.layers):
            xs = layer.forward(xs)
            if k < len(self.dropouts):
                xs = self.dropouts[k].forward(xs)
        self.cache = (xs.shape,) if self.train_flg or not self.dropouts else None
        self.state = self._gather("state")
        return xs

    def backward(self, dys: Array | None, d_final: States | None = None) -> Array:
        """Go back through every layer; ``dstate`` then has the gradients of the first states.

        Args:
            dys: (N, T, H * directions); None where only the final state is used.
            d_final: gradients of the states after the last step; None where they are not used.

        Returns:
            dxs (N, T, D).
        """
        (shape,) = self.saved()
        N, dtype = shape[0], self.one_way[0].dtype
        dxs = np.zeros(shape, dtype) if dys is None else dys
        self.expect_shape("dys", dxs, *shape)
        if d_final is None:
            sizes = self.one_way[0].state_sizes
            d_final = tuple(np.zeros((len(self.one_way), N, size), dtype) for size in sizes)
        self._expect_states(d_final, N, "d")
        dh, *d_others = d_final
        for k in reversed(range(len(self.layers))):
            if k < len(self.dropouts):
                dxs = self.dropouts[k].backward(dxs)
            own = slice(k * self.directions, (k + 1) * self.directions)
            others = [d[place] for place in range(len(self.one_way))[own] for d in d_others]
            dxs = self.layers[k].backward(self._add_last(dxs, dh[own]), *others)
        self.dstate = self._gather("dstate")
        return dxs

    def _add_last(self, dhs: Array, dh: Array) -> Array:
        """``dhs`` (N, T, H * directions) plus the gradient ``dh`` (directions, N, H) of the last h.

        The last h is the output at the last step that was read: from the right, that is the first.
        """
        H = self.hidden_size
        dhs = dhs.copy()
        dhs[:, -1, :H] += dh[0]
        if self.directions == 2:
            dhs[:, 0, H:] += dh[1]
        return dhs

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.state = None
        for layer in self.one_way:
            layer.reset_state()

    def get_state(self) -> States | None:
        """Copies of (h,) or (h, c); None where the next window begins from zeros."""
        return None if self.one_way[0].state is None or not self.stateful else self._gather("state")

    def set_state(self, *state: Array) -> None:
        """Begin the next window from h, and for an LSTM c, each (L * directions, N, H).

        Raises:
            ValueError: for a stack that is not stateful, or arrays of another shape.
        """
        if not self.stateful:
            raise ValueError(f"{type(self).__name__}: set_state needs a stack with stateful=True")
        self._set_states(state, "N")

    def _set_states(self, state: States, N: int | str) -> None:
        self._expect_states(state, N, "")
        for layer, *own in zip(self.one_way, *state, strict=True):
            layer.set_state(*own)

    def _expect_states(self, state: States, N: int | str, prefix: str) -> None:
        names = [prefix + name for name in self.one_way[0].state_names]
        if len(state) != len(names):
            raise ValueError(
                f"{type(self).__name__}: expected the states ({', '.join(names)}), "
                f"got {len(state)} arrays"
            )
        for name, array, size in zip(names, state, self.one_way[0].state_sizes, strict=True):
            self.expect_shape(name, array, len(self.one_way), N, size)

    def _gather(self, name: str) -> States:
        """One array (L * directions, N, width) for each state, from all one-way layers."""
        arrays = [getattr(layer, name) for layer in self.one_way]
        return tuple(np.stack(of_one_state) for of_one_state in zip(*arrays, strict=True))


def _one_way_layer(
    cell: Any,
    D: int,
    H: int,
    bias: bool,
    rng: numpy.random.Generator,
    dtype: str,
    options: dict[str, Any],
) -> KeptState:
    """One layer in one direction, as PyTorch begins it where PyTorch has such a layer."""
    if not (isinstance(cell, type) and issubclass(cell, TimeRecurrent)):
        return time_layer(cell, D, H, rng, dtype)
    shapes = (D, cell.num_gates * H), (H, cell.num_gates * H), (cell.bias_blocks[-1] * H,)
    Wx, Wh = (uniform(rng, H, shape, dtype) for shape in shapes[:2])
    b = uniform(rng, H, shapes[2], dtype) if bias else np.zeros(shapes[2], dtype)
    return cell(Wx, Wh, b, **options)
