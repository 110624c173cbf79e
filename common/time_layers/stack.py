"""Recurrent layers on top of each other, with the options of a library's RNN."""

from __future__ import annotations

import numpy

from common.layer import Layer, check_ratio
from common.np import Array, np
from common.time_layers.dropout import TimeDropout
from common.time_layers.recurrent import (
    RecurrentLayer,
    TimeBidirectional,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
)
from common.workspace import share_workspace

CELLS: dict[str, type[RecurrentLayer]] = {"rnn": TimeRNN, "lstm": TimeLSTM, "gru": TimeGRU}

States = tuple[Array, ...]


def uniform(rng: numpy.random.Generator, H: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Weights from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch begins its RNNs; drawn on the CPU."""
    return np.asarray(rng.uniform(-(H**-0.5), H**-0.5, shape).astype(dtype))


class TimeStack(Layer):
    """L recurrent layers, each of which reads what the one below puts out.

    Schmidhuber (1992), El Hihi and Bengio (1995); dropout as in Zaremba et al. (2014). Options,
    initial weights and states are those of PyTorch's ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU``. All
    h stand in one array (L * directions, N, H), layer by layer, the left before the right; so do
    all c.

    Args:
        input_size: D.
        hidden_size: H.
        num_layers: L.
        cell: "rnn", "lstm" or "gru"; the GRU's candidate has a recurrent bias of its own.
        nonlinearity: "tanh" or "relu", for "rnn" only.
        bias: whether there are biases, and gradients of them.
        dropout: probability of dropping what one layer hands to the next.
        bidirectional: two directions in each layer, one from the left and one from the right.
        stateful: carry the states from window to window.
        rng: draws the initial weights, then the dropout masks; a generator or a seed.
        dtype: float32 to train, float64 to check gradients.

    ``train_flg`` says whether ``forward`` drops; a model sets it.

    Raises:
        ValueError: for a size below 1, a ratio outside [0, 1), or a name that is not known.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        cell: str = "rnn",
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
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{who}: expected {name} of 1 or more, got {size}")
        if cell not in CELLS:
            raise ValueError(f"{who}: expected cell {', '.join(map(repr, CELLS))}, got {cell!r}")
        if cell != "rnn" and nonlinearity != "tanh":
            raise ValueError(f"{who}: nonlinearity {nonlinearity!r} is for cell 'rnn' only")
        check_ratio(who, dropout)
        rng = numpy.random.default_rng(rng)
        self.train_flg = True
        self.stateful = stateful
        self.hidden_size = hidden_size
        self.directions = 2 if bidirectional else 1

        kind, H = CELLS[cell], hidden_size
        options = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
        gates, bias_size = kind.num_gates * H, kind.bias_blocks[-1] * H
        widths = [input_size] + [self.directions * H] * (num_layers - 1)
        names: list[str] = []
        self.parts: list[RecurrentLayer] = []  # every layer and direction, in the states' order
        for l, D in enumerate(widths):
            for suffix in (f"_l{l}", f"_l{l}_reverse")[: self.directions]:
                Wx, Wh = (uniform(rng, H, (rows, gates), dtype) for rows in (D, H))
                b = uniform(rng, H, (bias_size,), dtype) if bias else np.zeros(bias_size, dtype)
                part = kind(Wx, Wh, b, stateful=True, **options)
                learned = 3 if bias else 2
                names += [name + suffix for name in part.param_names[:learned]]
                self.params += part.params[:learned]
                self.grads += part.grads[:learned]
                self.parts.append(part)
        self.param_names = tuple(names)
        sides = zip(self.parts[::2], self.parts[1::2], strict=False)
        self.layers = [TimeBidirectional(*p) for p in sides] if bidirectional else self.parts
        share_workspace(self.parts)
        self.dropouts = [TimeDropout(dropout, rng=rng) for _ in widths[1:]] if dropout else []

    def forward(self, xs: Array, state: States | None = None) -> tuple[Array, States]:
        """Run every layer over all steps.

        Args:
            xs: (N, T, D).
            state: where to begin, (h,) or for an LSTM (h, c), each (L * directions, N, H). If None:
                from the kept state of a stateful stack, else from zeros.

        Returns:
            The outputs of the last layer (N, T, H * directions), and the state after the last step.
        """
        self.expect_shape("xs", xs, "N", "T", len(self.params[0]))
        if state is not None:
            self._set_parts(state, len(xs))
        elif not self.stateful:
            self.reset_state()
        for k, layer in enumerate(self.layers):
            xs = layer.forward(xs)
            if k < len(self.dropouts):
                self.dropouts[k].train_flg = self.train_flg
                xs = self.dropouts[k].forward(xs)
        self.cache = (xs.shape,) if self.train_flg or not self.dropouts else None
        return xs, self._gather("")

    def backward(self, dys: Array | None, d_final: States | None = None) -> tuple[Array, States]:
        """Go back through every layer.

        Args:
            dys: (N, T, H * directions); None where only the final state is used.
            d_final: gradients of the state that ``forward`` returned; None where it is not used.

        Returns:
            dxs (N, T, D), and the gradients of the state that ``forward`` began from.
        """
        (shape,) = self.saved()
        N, dtype = shape[0], self.params[0].dtype
        dxs = np.zeros(shape, dtype) if dys is None else dys
        self.expect_shape("dys", dxs, *shape)
        if d_final is None:
            unused = np.zeros((len(self.parts), N, self.hidden_size), dtype)
            d_final = (unused,) * len(self.parts[0].state_names)
        self._expect_states(d_final, N, "d")
        dh, *dc = d_final
        for k in reversed(range(len(self.layers))):
            if k < len(self.dropouts):
                dxs = self.dropouts[k].backward(dxs)
            own = slice(k * self.directions, (k + 1) * self.directions)
            dc_own = [side for gradient in dc for side in gradient[own]]
            dxs = self.layers[k].backward(self._add_last(dxs, dh[own]), *dc_own)
        return dxs, self._gather("d")

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
        for part in self.parts:
            part.reset_state()

    def get_state(self) -> States | None:
        """Copies of (h,) or (h, c); None where the next window begins from zeros."""
        return None if self.parts[0].h is None or not self.stateful else self._gather("")

    def set_state(self, *state: Array) -> None:
        """Begin the next window from h, and for an LSTM c, each (L * directions, N, H).

        Raises:
            ValueError: for a stack that is not stateful, or arrays of another shape.
        """
        if not self.stateful:
            raise ValueError(f"{type(self).__name__}: set_state needs a stack with stateful=True")
        self._set_parts(state, "N")

    def _set_parts(self, state: States, N: int | str) -> None:
        self._expect_states(state, N, "")
        for part, *own in zip(self.parts, *state, strict=True):
            part.set_state(*own)

    def _expect_states(self, state: States, N: int | str, prefix: str) -> None:
        names = [prefix + name for name in self.parts[0].state_names]
        if len(state) != len(names):
            raise ValueError(
                f"{type(self).__name__}: expected the states ({', '.join(names)}), "
                f"got {len(state)} arrays"
            )
        for name, array in zip(names, state, strict=True):
            self.expect_shape(name, array, len(self.parts), N, self.hidden_size)

    def _gather(self, prefix: str) -> States:
        """One array (L * directions, N, H) of what all parts have under a state's name."""
        return tuple(
            np.stack([getattr(part, prefix + name) for part in self.parts])
            for name in self.parts[0].state_names
        )
