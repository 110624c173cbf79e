"""Everything in a model that training changes: weights, recurrent state, random generators."""

from __future__ import annotations

import copy
from typing import Any

import numpy

from common.np import Array, np

__all__ = ["generator_state", "load_model_state", "model_state", "named_params", "set_generator"]


def named_params(model: Any) -> dict[str, Array]:
    """The model's own names of its parameters; "parameter 1" and so on where it has none."""
    if hasattr(model, "named_params"):
        return model.named_params()
    return {f"parameter {k}": param for k, param in enumerate(model.params, start=1)}


def generator_state(rng: numpy.random.Generator) -> dict[str, Any]:
    """Where a generator stands: its kind and its numbers."""
    return copy.deepcopy(dict(rng.bit_generator.state))


def set_generator(rng: numpy.random.Generator, state: dict[str, Any]) -> None:
    """Let a generator go on from what ``generator_state`` returned."""
    rng.bit_generator.state = state


def _check_generators(
    who: str, rngs: list[numpy.random.Generator], states: list[dict[str, Any]]
) -> None:
    kinds = [type(rng.bit_generator).__name__ for rng in rngs]
    if kinds != (saved := [state["bit_generator"] for state in states]):
        raise ValueError(f"{who}: expected random generators {kinds}, got {saved}")


def model_state(model: Any) -> dict[str, Any]:
    """Copies of the weights, the state of every recurrent layer and of every generator.

    Args:
        model: has ``params``; what it carries from window to window it gives by ``get_state``.

    Raises:
        TypeError: for a model that carries a state and cannot give it.
    """
    if hasattr(model, "reset_state") and not hasattr(model, "get_state"):
        raise TypeError(
            f"{type(model).__name__} has reset_state but no get_state: the state that it carries "
            "cannot be kept"
        )
    state = model.get_state() if hasattr(model, "get_state") else []
    rngs = model.generators() if hasattr(model, "generators") else []
    return {
        "class": type(model).__name__,
        "params": {name: param.copy() for name, param in named_params(model).items()},
        "recurrent": [None if arrays is None else list(arrays) for arrays in state],
        "generators": [generator_state(rng) for rng in rngs],
    }


def load_model_state(model: Any, state: dict[str, Any]) -> None:
    """Go on from what ``model_state`` returned, in the model's own arrays and generators.

    Names and sizes of the weights are checked before the first array changes.

    Raises:
        ValueError: for the state of another model, or of one of other sizes; lists what differs.
    """
    who, params, saved = type(model).__name__, named_params(model), state["params"]
    rngs = model.generators() if hasattr(model, "generators") else []
    recurrent = model.get_state() if hasattr(model, "get_state") else []
    wrong = [f"{name} is missing" for name in params.keys() - saved.keys()]
    wrong += [f"{name} is not known" for name in saved.keys() - params.keys()]
    for name in params.keys() & saved.keys():
        want, got = ((a.shape, str(a.dtype)) for a in (params[name], saved[name]))
        if want != got:
            wrong.append(f"{name}: expected {want[0]} {want[1]}, got {got[0]} {got[1]}")
    if state["class"] != who:
        wrong.append(f"it belongs to {state['class']}")
    if len(recurrent) != len(state["recurrent"]):
        wrong.append(f"{len(recurrent)} recurrent layers, got {len(state['recurrent'])}")
    if wrong:
        raise ValueError(f"{who}: the saved state does not fit: " + "; ".join(sorted(wrong)))
    _check_generators(who, rngs, state["generators"])
    for name, param in params.items():
        param[...] = np.asarray(saved[name])
    if recurrent:
        model.set_state(
            [
                None if arrays is None else tuple(np.asarray(array) for array in arrays)
                for arrays in state["recurrent"]
            ]
        )
    for rng, numbers in zip(rngs, state["generators"], strict=True):
        set_generator(rng, numbers)
