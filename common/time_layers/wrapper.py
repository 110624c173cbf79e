"""A layer around a recurrent layer, which a model cannot tell from it."""

from __future__ import annotations

from typing import Any

from common.base_layer import Layer
from common.np import Array


def _of_layer(name: str) -> Any:
    """The wrapped layer's attribute ``name``, to read and to set."""

    def read(self: Any) -> Any:
        return getattr(self.layer, name)

    def write(self: Any, value: Any) -> None:
        setattr(self.layer, name, value)

    return property(read, write)


class TimeWrapper(Layer):
    """Base of layers around a recurrent layer: the same parameters and names, the same state.

    Args:
        layer: a recurrent time layer.

    Raises:
        TypeError: for a layer of another kind.
    """

    stateful, workspace, gates = map(_of_layer, ("stateful", "workspace", "gates"))
    state_names, state_sizes = map(_of_layer, ("state_names", "state_sizes"))
    state, dstate = map(_of_layer, ("state", "dstate"))
    h, c, dh, dc = map(_of_layer, ("h", "c", "dh", "dc"))

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if not isinstance(layer, Layer) or not layer.state_names:
            raise TypeError(
                f"{type(self).__name__}: expected a recurrent layer, got {type(layer).__name__}"
            )
        self.layer: Any = layer  # it has the attributes above
        self.params, self.grads = list(layer.params), layer.grads
        self.param_names = layer.param_names

    @property
    def kind(self) -> str:
        """What a weight file calls the wrapped layer."""
        return self.layer.kind

    def gate_values(self) -> dict[str, Array]:
        """Each gate of the last window by its letter, (N, T, H)."""
        return self.layer.gate_values()

    def reset_state(self) -> None:
        """Begin the next window from zeros."""
        self.layer.reset_state()

    def get_state(self) -> tuple[Array, ...] | None:
        """Copies of the states, each (N, its width); None where the next window begins at zero."""
        return self.layer.get_state()

    def set_state(self, *state: Array) -> None:
        """Begin the next window from these states, each (N, its width)."""
        self.layer.set_state(*state)
