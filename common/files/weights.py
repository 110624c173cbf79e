"""The weights of a model in a file: named float32 tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy

from common.files.tensors import read_tensors, write_tensors
from common.np import Array, np, to_cpu

__all__ = ["fill", "load", "save"]


def save(model: Any, path: str | os.PathLike) -> None:
    """Write the model's weights.

    Args:
        model: has ``named_params()``.
        path: the file.

    Raises:
        OSError: where the file cannot be written; an older one is then still whole.
        ValueError: for a weight that is not finite in float32; an older file stays.
    """
    tensors = {
        name: to_cpu(param).astype(numpy.float32, order="C")
        for name, param in model.named_params().items()
    }
    for name, tensor in tensors.items():
        if not numpy.isfinite(tensor).all():
            raise ValueError(f"{type(model).__name__}: {name} is not finite, it is not saved")
    about = {"model": type(model).__name__}
    if vocabulary := getattr(model, "vocabulary_hash", ""):
        about["vocabulary"] = vocabulary
    write_tensors(path, tensors, about)


def load(model: Any, path: str | os.PathLike) -> None:
    """Copy the weights of a file into the model's own arrays.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: for a damaged file, or one of another model or other words; lists every
            difference.
    """
    tensors, about = read_tensors(path)
    words = (about.get("vocabulary"), getattr(model, "vocabulary_hash", ""))
    if all(words) and words[0] != words[1]:
        raise ValueError(f"{path}: the weights belong to another vocabulary than the model")
    fill(model, tensors, path)


def fill(model: Any, tensors: Mapping[str, Array], source: str | os.PathLike) -> None:
    """Copy weights by name into the model's own arrays.

    Every name, shape and dtype is checked before the first array changes.

    Args:
        model: has ``named_params()``.
        tensors: float32 arrays under those names.
        source: the file that an error names.

    Raises:
        ValueError: where the weights are those of another model; lists every difference.
    """
    params = model.named_params()
    wrong = [f"{name} is missing" for name in params if name not in tensors]
    wrong += [f"{name} is not known" for name in tensors if name not in params]
    for name in params.keys() & tensors.keys():
        want, tensor = params[name].shape, to_cpu(tensors[name])
        if tensor.shape != want or tensor.dtype != numpy.float32:
            wrong.append(f"{name}: expected {want} float32, got {tensor.shape} {tensor.dtype}")
        elif not numpy.isfinite(tensor).all():
            wrong.append(f"{name} holds values that are not finite")
    if wrong:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}:\n  " + "\n  ".join(sorted(wrong))
        )
    for name, param in params.items():
        param[...] = np.asarray(tensors[name])
