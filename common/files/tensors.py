"""Named arrays and a JSON description in one safetensors file, whole and unaltered or refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.files.atomic import write_atomically
from common.np import Array, to_cpu

__all__ = ["read_tensors", "write_tensors"]

OURS = "time_layers"  # the only key of the header's metadata: several would stand in any order
CHECKSUM = "sha256"


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
    metadata = {OURS: json.dumps({"about": about, CHECKSUM: checksum})}
    write_atomically(path, save(arrays, metadata))


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, numpy.ndarray], dict[str, Any]]:
    """The arrays and the description in a file; a file made elsewhere has an empty description.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a file that is cut short, altered, or no safetensors file.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        if OURS not in metadata:
            if any('"about"' in text and f'"{CHECKSUM}"' in text for text in metadata.values()):
                raise ValueError("its checksum stands under another name")
            return tensors, {}
        described = json.loads(metadata[OURS])
        about = described["about"]
        if described[CHECKSUM] != _checksum(tensors, json.dumps(about, sort_keys=True)):
            raise ValueError("its checksum does not fit its content")
        if not isinstance(about, dict):
            raise ValueError(f"its description is no object but a {type(about).__name__}")
        return tensors, about
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from error
