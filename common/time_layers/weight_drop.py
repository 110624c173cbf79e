"""DropConnect on the recurrent weight of a recurrent layer."""

from __future__ import annotations

import math
from typing import Any

import numpy

from common.layer import Layer, Recurrent, check_ratio
from common.np import Array, np
from common.time_layers.recurrent import RecurrentLayer

RESOLUTION = 1 << 16  # a draw has 16 bits


def _of_layer(name: str) -> Any:
    """The wrapped layer's attribute ``name``, to read and to set."""

    def read(self: Any) -> Any:
        return getattr(self.layer, name)

    def write(self: Any, value: Any) -> None:
        setattr(self.layer, name, value)

    return property(read, write)


class TimeWeightDrop(Layer):
    """While training, a recurrent layer whose ``Wh`` has elements dropped, anew for every window.

    Each element of Wh is zero for all N sequences and all T steps with probability
    ``dropout_ratio``; the rest are scaled up. Wan et al. (2013); on the recurrent weight Merity et
    al. (2018), section 4.1.

    To a model this is the wrapped layer: the same parameters under the same names, the same state.
    ``params`` holds the whole Wh, which an optimizer updates and a file keeps.

    Args:
        layer: a TimeRNN, TimeLSTM or TimeGRU.
        dropout_ratio: probability of dropping, in [0, 1), taken to 16 bits.
        rng: where the masks come from; a fresh generator if None.

    ``train_flg`` says whether ``forward`` drops; a model sets it.

    Raises:
        TypeError: for a layer of another kind.
        ValueError: for a ratio outside [0, 1).
    """

    stateful, h, c, dh, dc = map(_of_layer, ("stateful", "h", "c", "dh", "dc"))
    state_names, num_gates = map(_of_layer, ("state_names", "num_gates"))
    workspace = _of_layer("workspace")

    def __init__(
        self,
        layer: Recurrent,
        dropout_ratio: float = 0.5,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if not isinstance(layer, RecurrentLayer):
            raise TypeError(
                f"{who}: expected a TimeRNN, TimeLSTM or TimeGRU, got {type(layer).__name__}"
            )
        self.dropout_ratio = check_ratio(who, dropout_ratio)
        self.rng = rng if rng is not None else numpy.random.default_rng()
        self.train_flg = True
        self.layer = layer
        self.params = list(layer.params)
        self.grads = layer.grads
        self.param_names = layer.param_names
        self._dropped_Wh = np.empty_like(layer.params[1])

    def _draw(self, shape: tuple[int, ...], threshold: int) -> Array:
        """Which elements stay: four draws for each 64 bits of the generator."""
        size = math.prod(shape)
        bits = self.rng.integers(0, 1 << 64, -(-size // 4), dtype=numpy.uint64)
        return np.asarray((bits.view(numpy.uint16)[:size] >= threshold).reshape(shape))

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> hs (N, T, H)."""
        Wx, Wh, _ = self.params
        self.expect_shape("xs", xs, "N", "T", len(Wx))
        if not self.train_flg:
            self.cache = None
            self.layer.params[1] = Wh
            return self.layer.forward(xs)
        threshold = min(round(self.dropout_ratio * RESOLUTION), RESOLUTION - 1)
        kept = self._draw(Wh.shape, threshold)
        scale = 1 / (1 - threshold / RESOLUTION)
        np.multiply(Wh, kept, out=self._dropped_Wh)
        self._dropped_Wh *= scale
        self.layer.params[1] = self._dropped_Wh
        hs = self.layer.forward(xs)
        self.cache = (kept, scale, hs.shape)
        return hs

    def backward(self, dhs: Array, *dc_next: Array) -> Array:
        """(N, T, H), of an LSTM also (N, H) for the last c -> dxs (N, T, D)."""
        kept, scale, shape = self.saved()
        self.expect_shape("dhs", dhs, *shape)
        dxs = self.layer.backward(dhs, *dc_next)
        dWh = self.grads[1]  # the wrapped layer writes it anew each time
        dWh *= kept
        dWh *= scale
        return dxs

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.layer.reset_state()

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the state arrays, each (N, H); None where the next window begins from zeros."""
        return self.layer.get_state()

    def set_state(self, *state: Array) -> None:
        """Begin the next window from these arrays, each (N, H)."""
        self.layer.set_state(*state)
