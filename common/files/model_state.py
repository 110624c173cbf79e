"""The weights of a model in a file, and what training changes in dicts that a checkpoint holds."""

from __future__ import annotations

import copy
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from common.base_layer import GRU_GATES, Layer
from common.files.atomic import read_whole, write_atomically
from common.files.book_pickle import read_array_list
from common.files.tensors import read_tensors, write_tensors
from common.masks import Masks
from common.np import Array, memory_address, np, same_elements, to_cpu

__all__ = [
    "all_params",
    "differences",
    "fill_weights",
    "holds_generators",
    "load_model_state",
    "load_trainer_state",
    "load_weights",
    "model_state",
    "name_weights",
    "named_constants",
    "named_params",
    "save_weights",
    "trainer_state",
]

OWN, PICKLE = ".safetensors", ".pkl"  # how the names of files of weights end


def all_params(model: Any) -> Iterator[tuple[str, Array]]:
    """The parameters of all layers with their names, a tied one as often as it occurs.

    A layer's name is its ``kind``, numbered where there are several of one kind. Without layers the
    parameters are "parameter 1" and so on, in the order of ``params``.
    """
    if not getattr(model, "layers", None):
        yield from ((f"parameter {k}", param) for k, param in enumerate(model.params, start=1))
        return
    for of_layer, layer in _named_layers(model):
        names = getattr(layer, "param_names", None) or map(str, range(len(layer.params)))
        for name, param in zip(names, layer.params, strict=True):
            yield f"{of_layer}.{name}", param


def _named_layers(model: Any) -> Iterator[tuple[str, Any]]:
    kinds = [getattr(layer, "kind", type(layer).__name__.lower()) for layer in model.layers]
    for k, layer in enumerate(model.layers):
        number = str(kinds[: k + 1].count(kinds[k])) if kinds.count(kinds[k]) > 1 else ""
        yield f"{kinds[k]}{number}", layer


def named_constants(model: Any) -> dict[str, Array]:
    """What belongs to the weights and is not trained, by name; what layers share once."""
    named: dict[str, Array] = {}
    for of_layer, layer in _named_layers(model) if getattr(model, "layers", None) else ():
        for name, array in getattr(layer, "constants", {}).items():
            if not any(array is known for known in named.values()):
                named[f"{of_layer}.{name}"] = array
    return named


def named_params(model: Any) -> dict[str, Array]:
    """The parameters by name, a tied one under its first; "parameter 7" of one in no layer."""
    others = ((f"parameter {k}", p) for k, p in enumerate(getattr(model, "params", []), start=1))
    named: dict[str, Array] = {}
    for name, param in (*all_params(model), *others):
        if not any(memory_address(param) == memory_address(known) for known in named.values()):
            named[name] = param
    return named


def differences(
    expected: Mapping[str, Array], tensors: Mapping[str, Array], dtype: str | None = None
) -> list[str]:
    """What keeps ``tensors`` from taking the place of ``expected``, a line for each name.

    Args:
        expected: arrays by name.
        tensors: what there is, by name.
        dtype: of every tensor; None for that of the array it is to replace.
    """
    found = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    found += [f"{name} is not known" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        want = f"{expected[name].shape} {dtype or expected[name].dtype}"
        got = f"{tensors[name].shape} {tensors[name].dtype}"
        if want != got:
            found.append(f"{name}: expected {want}, got {got}")
    return sorted(found)


def save_weights(model: Any, path: str | os.PathLike | None) -> None:
    """Write the model's weights.

    Args:
        model: has ``named_params()``.
        path: the file, None for ``ClassName.safetensors``; one whose name ends in ".pkl" becomes a
            pickled list of arrays, for the book's ``load_params``.

    Raises:
        OSError: where the file cannot be written; an older one is then still whole.
        ValueError: for a weight that is not finite in float32, or a list of a model whose weights
            are not all; an older file stays.
    """
    tensors = {
        name: to_cpu(param).astype(numpy.float32, order="C")
        for name, param in model.named_params().items()
    }
    for name, tensor in tensors.items():
        if not numpy.isfinite(tensor).all():
            raise ValueError(f"{type(model).__name__}: {name} is not finite, it is not saved")
    path, constants = _own_file(model) if path is None else Path(path), named_constants(model)
    if path.suffix == PICKLE:
        if constants:
            raise ValueError(
                f"{path}: a list of weights has no place for {', '.join(constants)} of "
                f"{type(model).__name__}; name a file that ends in {OWN}"
            )
        arrays = [to_cpu(param).astype(numpy.float32) for param in _params_in_order(model)]
        write_atomically(path, pickle.dumps(arrays))
        return
    about = {"model": type(model).__name__}
    if vocabulary := getattr(model, "vocabulary_hash", ""):
        about["vocabulary"] = vocabulary
    write_tensors(path, tensors | constants, about)


def load_weights(model: Any, path: str | os.PathLike | None) -> None:
    """Copy the weights of a file into the model's own arrays.

    Args:
        model: has ``named_params()``.
        path: what ``save_weights`` has written, or a file of the book, whose name ends in ".pkl";
            None and missing files as for ``BaseModel.load_params``.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a damaged file, or one of another model or other words; lists every
            difference.
    """
    path = _file_to_load(model, path)
    if path.suffix == PICKLE and read_whole(path, 9)[8:] != b"{":  # else of safetensors
        fill_weights(model, name_weights(model, read_array_list(path), path), path)
        return
    tensors, about = read_tensors(path)
    words = (about.get("vocabulary"), getattr(model, "vocabulary_hash", ""))
    if all(words) and words[0] != words[1]:
        raise ValueError(f"{path}: the weights belong to another vocabulary than the model")
    fill_weights(model, tensors, path)


def _own_file(model: Any) -> Path:
    return Path(f"{type(model).__name__}{OWN}")


def _file_to_load(model: Any, path: str | os.PathLike | None) -> Path:
    """The file that a name stands for, with a warning where that is another one."""
    if path is None:
        own = _own_file(model)
        pickled = own.with_suffix(PICKLE)
        return pickled if pickled.exists() and not own.exists() else own
    path = Path(path)
    beside = path.with_suffix(OWN)
    if path.suffix == PICKLE and beside.exists():
        if not path.exists():
            warnings.warn(f"{path} is not there, {beside} is read", stacklevel=4)
            return beside
        if beside.stat().st_mtime > path.stat().st_mtime:
            warnings.warn(f"{path} is read, {beside} is newer", stacklevel=4)
    return path


def _params_in_order(model: Any) -> list[Array]:
    """What the book's list of arrays holds: every parameter, a tied one as often as it occurs."""
    params = [param for _, param in all_params(model)]
    return params if len(params) > len(model.params) else list(model.params)


def name_weights(
    model: Any, arrays: Sequence[Array], source: str | os.PathLike
) -> dict[str, Array]:
    """The book's list of arrays under the names of ``model``, in float32.

    Of a GRU in float16, as the book saves it, a warning says that it computes something else here.

    Args:
        model: says which weights are expected; it is not changed.
        arrays: in the order of its parameters; a tied one stands there again, or only once.
        source: the file that an error names.

    Raises:
        ValueError: for another number of arrays, or a tied one that is not the same again.
    """
    names = {memory_address(param): name for name, param in named_params(model).items()}
    params = _params_in_order(model)
    if len(arrays) == len(names):
        params = list(named_params(model).values())
    if len(arrays) != len(params):
        raise ValueError(
            f"{source}: expected {len(names)} arrays for {type(model).__name__} "
            f"({', '.join(names.values())}), got {len(arrays)}"
        )
    if any(array.dtype == numpy.float16 for array in arrays) and any(
        layer.gates == GRU_GATES for layer in _layers_of(model, set())
    ):
        warnings.warn(
            f"{source}: the GRU of the book has another formula, and its gates another order; "
            f"{type(model).__name__} computes something else with the same weights",
            stacklevel=4,
        )
    weights: dict[str, Array] = {}
    first: dict[str, Array] = {}
    for k, (param, array) in enumerate(zip(params, arrays, strict=True)):
        name = names[memory_address(param)]
        known = first.setdefault(name, param)
        again = array if same_elements(param, known) else array.T
        if name in weights and not numpy.array_equal(again, weights[name]):
            tie = name if again is array else f"{name} transposed"
            raise ValueError(
                f"{source}: array {k} is not {tie}, to which {type(model).__name__} ties it"
            )
        weights.setdefault(name, array.astype(numpy.float32))
    return weights


def _layers_of(owner: Any, seen: set[int]) -> Iterator[Layer]:
    """Every layer that is held by ``owner``, by a list in it, or by what has parameters in it."""
    seen.add(id(owner))
    for value in getattr(owner, "__dict__", {}).values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, Layer):
                yield from part.sublayers()
            elif hasattr(part, "params") and id(part) not in seen:
                yield from _layers_of(part, seen)


def fill_weights(model: Any, tensors: Mapping[str, Array], source: str | os.PathLike) -> None:
    """Copy weights by name into the model's own arrays.

    Every name, shape and dtype is checked before the first array changes.

    Args:
        model: has ``named_params()``.
        tensors: float32 arrays under those names, and what belongs to them (``named_constants``).
        source: the file that an error names.

    Raises:
        ValueError: where the weights are those of another model; lists every difference.
    """
    params, constants = model.named_params(), named_constants(model)
    weights = {name: tensor for name, tensor in tensors.items() if name not in constants}
    others = {name: tensor for name, tensor in tensors.items() if name in constants}
    wrong = differences(params, weights, "float32") + differences(constants, others)
    for name in params.keys() & tensors.keys():
        tensor = to_cpu(tensors[name])
        if tensor.dtype == numpy.float32 and not numpy.isfinite(tensor).all():
            wrong.append(f"{name} holds values that are not finite")
    if wrong:
        listed = "\n  ".join(sorted(wrong))
        raise ValueError(f"{source} does not fit {type(model).__name__}:\n  {listed}")
    for name, param in params.items():
        param[...] = np.asarray(tensors[name])
    for name, constant in constants.items():
        constant[...] = to_cpu(tensors[name])


def holds_generators(state: dict[str, Any]) -> bool:
    """Whether the state of a trainer is of an older version, without what masks are drawn by."""
    return "seed" not in state or "masks" not in state["model"]


def model_state(model: Any) -> dict[str, Any]:
    """Copies of the weights, the state of every recurrent layer, and what masks are drawn by.

    What belongs to the weights and is not trained stands among them.

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
    weights = named_params(model) | named_constants(model)
    return {
        "class": type(model).__name__,
        "params": {name: array.copy() for name, array in weights.items()},
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
    constants = named_constants(model)
    recurrent = model.get_state() if hasattr(model, "get_state") else []
    wrong = differences(params | constants, saved)
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
    for name, constant in constants.items():
        constant[...] = to_cpu(saved[name])
    if recurrent:
        model.set_state(
            [
                None if arrays is None else tuple(np.asarray(array) for array in arrays)
                for arrays in state["recurrent"]
            ]
        )
    for masks, kept in zip(_masks(model), state["masks"], strict=True):
        masks.layer, masks.seed, masks.passes = kept["layer"], kept["seed"], kept["passes"]


def trainer_state(trainer: Any) -> dict[str, Any]:
    """What ``Trainer.state_dict`` returns.

    Raises:
        TypeError: for a model that carries a state and cannot give it.
    """
    progress = trainer.progress
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


def load_trainer_state(trainer: Any, state: dict[str, Any]) -> None:
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
    trainer.order = numpy.array(state["order"], dtype=int).reshape(-1)
    progress, saved_progress = trainer.progress, state["progress"]
    total = np.asarray(saved_progress["total"])
    progress.total = total.astype(total.dtype if total.dtype.kind == "f" else float)[()]
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
