"""A training run in one file: what ``Trainer.state_dict`` gives, read back bit for bit.

    write_checkpoint("run.safetensors", trainer.state_dict())
    trainer.load_state_dict(read_checkpoint("run.safetensors"))

Any nest of dicts and lists will do; its arrays become tensors of the file, the rest its JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from common.files.tensors import read_tensors, write_tensors
from common.np import Array

__all__ = ["read_checkpoint", "write_checkpoint"]

ARRAY, STATE = "$array", "checkpoint"


def _take_arrays(value: Any, name: str, arrays: dict[str, Array]) -> Any:
    """``value`` with the name of a tensor in place of every array."""
    if isinstance(value, Mapping):
        return {key: _take_arrays(part, f"{name}.{key}", arrays) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(part, f"{name}.{k}", arrays) for k, part in enumerate(value)]
    if hasattr(value, "dtype") and not isinstance(value, float):  # numpy.float64 is a float
        name = name.removeprefix(".")
        if name in arrays:
            raise ValueError(f"write_checkpoint: two arrays would have the name {name!r}")
        arrays[name] = value
        return {ARRAY: name}
    return value


def _give_arrays(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return arrays[value[ARRAY]]
        return {key: _give_arrays(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [_give_arrays(part, arrays) for part in value]
    return value


def write_checkpoint(path: str | os.PathLike, state: Mapping[str, Any]) -> None:
    """Write ``state``; what stood in ``path`` before stays until all is on disk.

    Args:
        path: the file.
        state: dicts with names as keys, lists, arrays, numbers, texts, None; floats and integers
            come back exactly, tuples as lists.

    Raises:
        OSError: where it cannot be written; the checkpoint before it is then still whole.
        ValueError: where the dotted paths of two arrays are the same.
    """
    arrays: dict[str, Array] = {}
    about = {STATE: _take_arrays(state, "", arrays)}
    try:
        write_tensors(path, arrays, about)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the checkpoint ({error.strerror}); one written before is still whole",
            str(path),
        ) from error


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """What ``write_checkpoint`` wrote, its arrays on the CPU.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is cut short, altered, or no checkpoint.
    """
    arrays, about = read_tensors(path)
    if STATE not in about:
        raise ValueError(f"{path}: a safetensors file, but not a checkpoint")
    return _give_arrays(about[STATE], arrays)
