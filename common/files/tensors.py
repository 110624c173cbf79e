"""Named arrays and a JSON description in one safetensors file, whole and unaltered or refused.

A checkpoint is a nest of dicts and lists in such a file; its arrays become tensors, the rest JSON:

    write_checkpoint("run.safetensors", trainer.state_dict())
    trainer.load_state_dict(read_checkpoint("run.safetensors"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.files.atomic import read_whole, write_atomically
from common.np import Array, to_cpu

__all__ = ["read_checkpoint", "read_tensors", "write_checkpoint", "write_tensors"]

METADATA_KEY = "time_layers"  # alone in the header's metadata: several would stand in any order
CHECKSUM = "sha256"
ARRAY, STATE = "$array", "checkpoint"


def _checksum(tensors: Mapping[str, numpy.ndarray], about: str) -> str:
    """SHA-256 of everything that the file says: description, names, dtypes, shapes, values."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, Array], about: Mapping[str, Any]
) -> None:
    """Write ``tensors`` and ``about``; what stood in ``path`` before stays until all is on disk.

    Args:
        path: the file.
        tensors: arrays by name, of any shape and dtype that safetensors knows.
        about: what JSON can hold; numbers come back exactly.

    Raises:
        OSError: where the file cannot be written; an older one is then still whole.
    """
    arrays = {name: numpy.asarray(to_cpu(array), order="C") for name, array in tensors.items()}
    arrays = {name: a.astype(a.dtype.newbyteorder("<"), copy=False) for name, a in arrays.items()}
    about = json.loads(json.dumps(about))  # as it will be read
    checksum = _checksum(arrays, json.dumps(about, sort_keys=True))
    metadata = {METADATA_KEY: json.dumps({"about": about, CHECKSUM: checksum})}
    write_atomically(path, save(arrays, metadata))


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, numpy.ndarray], dict[str, Any]]:
    """The arrays and the description in a file; a file made elsewhere has an empty description.

    Raises:
        FileNotFoundError: where there is no such file.
        OSError: where it cannot be read, or is no file.
        ValueError: for a file that is cut short, altered, or no safetensors file.
    """
    data = read_whole(path)
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        if METADATA_KEY not in metadata:
            if any('"about"' in text and f'"{CHECKSUM}"' in text for text in metadata.values()):
                raise ValueError("its checksum stands under another name")
            return tensors, {}
        described = json.loads(metadata[METADATA_KEY])
        about = described["about"]
        if described[CHECKSUM] != _checksum(tensors, json.dumps(about, sort_keys=True)):
            raise ValueError("its checksum does not fit its content")
        if not isinstance(about, dict):
            raise ValueError(f"its description is no object but a {type(about).__name__}")
        return tensors, about
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error


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
        OSError: where it cannot be read, or is no file.
        ValueError: for a file that is cut short, altered, or no checkpoint.
    """
    arrays, about = read_tensors(path)
    if STATE not in about:
        raise ValueError(f"{path}: a safetensors file, but not a checkpoint")
    return _give_arrays(about[STATE], arrays)
