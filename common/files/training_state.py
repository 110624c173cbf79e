"""Everything that training changes, in dicts that a checkpoint holds: model, trainer, optimizer."""

from __future__ import annotations

import copy
from typing import Any

import numpy

from common.divergence import DivergenceError, all_finite, first_not_finite, named_params
from common.masks import Masks
from common.np import np
from common.optimizer import UniqueParameters

__all__ = [
    "give_trainer",
    "holds_generators",
    "load_model_state",
    "model_state",
    "of_trainer",
]


def holds_generators(state: dict[str, Any]) -> bool:
    """Whether the state of a trainer is of an older version, without what masks are drawn by."""
    return "seed" not in state or "masks" not in state["model"]


def model_state(model: Any) -> dict[str, Any]:
    """Copies of the weights, the state of every recurrent layer, and what masks are drawn by.

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
    return {
        "class": type(model).__name__,
        "params": {name: param.copy() for name, param in named_params(model).items()},
        "recurrent": [None if arrays is None else list(arrays) for arrays in state],
        "masks": [
            {"layer": masks.layer, "seed": masks.seed, "passes": masks.passes}
            for masks in _masks(model)
        ],
    }


def _masks(model: Any) -> list[Masks]:
    return model.masks() if hasattr(model, "masks") else []


def load_model_state(model: Any, state: dict[str, Any]) -> None:
    """Go on from what ``model_state`` returned, in the model's own arrays.

    Names and sizes of the weights are checked before the first array changes.

    Raises:
        ValueError: for the state of another model, or of one of other sizes; lists what differs.
    """
    who, params, saved = type(model).__name__, named_params(model), state["params"]
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
    if len(_masks(model)) != len(state["masks"]):
        wrong.append(f"{len(_masks(model))} layers that drop, got {len(state['masks'])}")
    if wrong:
        raise ValueError(f"{who}: the saved state does not fit: " + "; ".join(sorted(wrong)))
    for name, param in params.items():
        param[...] = np.asarray(saved[name])
    if recurrent:
        model.set_state(
            [
                None if arrays is None else tuple(np.asarray(array) for array in arrays)
                for arrays in state["recurrent"]
            ]
        )
    for masks, kept in zip(_masks(model), state["masks"], strict=True):
        masks.layer, masks.seed, masks.passes = kept["layer"], kept["seed"], kept["passes"]


def of_trainer(trainer: Any) -> dict[str, Any]:
    """What ``Trainer.state_dict`` returns.

    Raises:
        DivergenceError: where a weight, or a loss since the last report, is not finite.
        TypeError: for a model that carries a state and cannot give it.
    """
    progress = trainer.progress
    if not all_finite([*trainer.model.params, np.asarray(progress.total)]):
        unique = UniqueParameters(trainer.model.params, trainer.model.grads)
        raise DivergenceError(
            f"{type(trainer).__name__}: not kept, after {trainer.iteration} iterations something "
            f"is not finite, {first_not_finite(trainer.model, unique)}; try a smaller learning "
            "rate or a smaller max_grad"
        )
    return {
        "trainer": type(trainer).__name__,
        "model": model_state(trainer.model),
        "rule": type(trainer.optimizer).__name__,
        "optimizer": trainer.optimizer.state_dict(),
        "seed": trainer.seed,
        "rng": copy.deepcopy(dict(trainer.rng.bit_generator.state)) if trainer.shuffles else None,
        "epoch": trainer.epoch,
        "column": trainer.column,
        "in_epoch": trainer.in_epoch,
        "average": None if trainer.average is None else trainer.average.state_dict(),
        "iteration": trainer.iteration,
        "skipped": trainer.skipped,
        "skipped_in_a_row": trainer.skipped_in_a_row,
        "order": trainer.order.copy(),
        "progress": {
            "total": np.array(progress.total),  # in its own dtype
            "targets": int(progress.targets),
            "iterations": progress.iterations,
            "seconds": progress.seconds,
        },
        "curve": _columns(trainer.curve),
    }


def give_trainer(trainer: Any, state: dict[str, Any]) -> None:
    """What ``Trainer.load_state_dict`` does.

    Raises:
        ValueError: for the state of another kind of trainer, optimizer, average or model, or of a
            version that drew from generators.
    """
    if holds_generators(state):
        raise ValueError(
            f"{type(trainer).__name__}: the state is of an older version, which kept generators "
            "where this one counts; training cannot go on from it, its weights can be used"
        )
    kinds = [type(trainer).__name__, type(trainer.optimizer).__name__]
    if kinds != (saved := [state["trainer"], state["rule"]]):
        raise ValueError(f"{kinds[0]}: expected the state of {kinds}, got {saved}")
    if state["rng"] is not None:
        own, saved_kind = type(trainer.rng.bit_generator).__name__, state["rng"]["bit_generator"]
        if own != saved_kind:
            raise ValueError(f"{kinds[0]}: expected a generator {own}, got {saved_kind}")
    if (trainer.average is None) != (state.get("average") is None):
        raise ValueError(f"{kinds[0]}: one of the state and the trainer has no average")
    load_model_state(trainer.model, state["model"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.average is not None:
        trainer.average.load_state_dict(state["average"])
    trainer.seed = int(state["seed"])
    if state["rng"] is not None:
        trainer.rng.bit_generator.state = state["rng"]
    for name in ("epoch", "column", "in_epoch", "iteration", "skipped", "skipped_in_a_row"):
        setattr(trainer, name, int(state[name]))
    trainer.order = numpy.array(state["order"])
    progress, saved_progress = trainer.progress, state["progress"]
    progress.total = np.asarray(saved_progress["total"])[()]
    progress.targets = int(saved_progress["targets"])
    progress.iterations = int(saved_progress["iterations"])
    progress.seconds = float(saved_progress["seconds"])
    trainer.curve = _records(state["curve"])


def _columns(records: list[dict[str, float]]) -> dict[str, Any]:
    """Records with their values in one array (records, names), NaN where one has no such value."""
    names = list(dict.fromkeys(name for record in records for name in record))
    rows = [[record.get(name, numpy.nan) for name in names] for record in records]
    return {"names": names, "values": numpy.array(rows).reshape(len(rows), len(names))}


def _records(columns: dict[str, Any] | None) -> list[dict[str, float]]:
    """What ``_columns`` was given; no record where somebody else keeps them."""
    if columns is None:
        return []
    return [
        {name: float(x) for name, x in zip(columns["names"], row, strict=True) if x == x}
        for row in columns["values"]
    ]
