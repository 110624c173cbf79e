"""States and gates of every recurrent layer after every token of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from common.base_layer import KeptState, Layer
from common.np import Array, to_cpu
from common.perplexity.protocols import evaluation, require_language_model, streams
from common.plotting import progress

__all__ = ["LayerActivations", "activations", "recurrent_layers"]


@dataclass(frozen=True)
class LayerActivations:
    """What one recurrent layer held after every token.

    Args:
        kind: what a weight file calls the layer, such as "lstm".
        states: each state, (T, its width), by its name; the first is the output.
        gates: each gate, (T, H), by its letter; none of a layer that has none or does not tell.
    """

    kind: str
    states: dict[str, numpy.ndarray]
    gates: dict[str, numpy.ndarray]

    def without_first(self) -> LayerActivations:
        """The same but for the first token."""
        states, gates = (
            {name: values[1:] for name, values in named.items()}
            for named in (self.states, self.gates)
        )
        return LayerActivations(self.kind, states, gates)

    @property
    def saturating(self) -> dict[str, numpy.ndarray]:
        """The gates that open and close: those that never leave 0 to 1.

        A candidate (g of an LSTM, n of a GRU) is a value that is let in, and takes either sign.
        """
        return {
            name: values
            for name, values in self.gates.items()
            if values.min(initial=0) >= 0 and values.max(initial=0) <= 1
        }


def recurrent_layers(model: Any) -> list[KeptState]:
    """Every recurrent layer of a model, from the bottom up, without what is wrapped around it."""
    found = (
        part
        for layer in model.layers
        if isinstance(layer, Layer)
        for part in layer.sublayers()
        if isinstance(part, KeptState)
    )
    return list({id(layer): layer for layer in found}.values())


def activations(model: Any, ids: Array) -> list[LayerActivations]:
    """Read a text from a zero state, and keep what every recurrent layer holds after each token.

    One token is read at a time, with dropout off, by the layers' own forward passes: whatever a
    cell computes is seen, and nothing is computed twice. Layers above the last recurrent one are
    left out.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        ids: the tokens (T,).

    Returns:
        One for each recurrent layer.

    Raises:
        TypeError: for a model that is not composed of layers, or ids that are not integers.
        ValueError: for a model without a recurrent layer, no ids, or one that is out of range.
    """
    who = "activations"
    require_language_model(model, who)
    if not (layers := recurrent_layers(model)):
        raise ValueError(f"{who}: {type(model).__name__} has no recurrent layer to look into")
    xs = streams(ids, 1, who)
    top = max(k for k, layer in enumerate(model.layers) if getattr(layer, "state_names", ()))
    below = model.layers[: top + 1]
    model.layers[0].expect_ids("ids", xs, model.layers[-1].num_classes)
    T = xs.shape[1]
    kept: list[tuple[dict, ...]] = []
    with evaluation(model), progress(range(T), unit=" tokens", desc="activations") as bar:
        for t in bar:
            model.run(below, xs[:, t : t + 1], train_flg=False)
            now = [_of_last_step(layer) for layer in layers]
            if not kept:
                kept = [_room(T, *each) for each in now]
            for room, each in zip(kept, now, strict=True):
                for arrays, rows in zip(room, each, strict=True):
                    for name, row in rows.items():
                        arrays[name][t] = row
    return [LayerActivations(layer.kind, *each) for layer, each in zip(layers, kept, strict=True)]


def _of_last_step(layer: KeptState) -> tuple[dict[str, numpy.ndarray], dict[str, numpy.ndarray]]:
    """The states and the gates of the only sequence after the step that was read, each (width,)."""
    states = zip(layer.state_names, layer.state or (), strict=True)
    gates = layer.gate_values().items()
    return (
        {name: to_cpu(state)[0] for name, state in states},
        {name: to_cpu(gate)[0, -1] for name, gate in gates},
    )


def _room(T: int, *kinds: dict[str, numpy.ndarray]) -> tuple[dict, ...]:
    """Arrays (T, width) for rows of that kind."""
    return tuple(
        {name: numpy.empty((T, len(row)), row.dtype) for name, row in rows.items()}
        for rows in kinds
    )
