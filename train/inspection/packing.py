"""Arrays inside a page: compressed, in letters, and where it must be rounded.

Of an LSTM with 640 units a text of 3,000 tokens has 11.5 million values. They are stored unit by
unit in equal steps between the smallest and the largest value of each, as many steps as fit:

    value = low + step * code,      step = (high - low) / steps,      code = 0 .. steps
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import numpy

__all__ = ["STEPS", "pack", "rounded", "rounded_to_fit"]

STEPS = (
    255,
    127,
    63,
    31,
    23,
    15,
    11,
    9,
    7,
    6,
    5,
)  # tried in this order; the last is taken in any case

Packed = dict[str, Any]


def pack(values: numpy.ndarray) -> Packed:
    """An array for JSON: what it is made of, and its bytes by zlib and base64.

    Args:
        values: uint8, int32 or float32, of any shape; what reads it has to know the shape.

    Raises:
        TypeError: for another dtype.
    """
    kind = values.dtype.name
    if kind not in ("uint8", "int32", "float32"):
        raise TypeError(f"pack: expected uint8, int32 or float32, got {kind}")
    little = numpy.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {"type": kind, "data": base64.b64encode(_compressed(little)).decode("ascii")}


def rounded(values: numpy.ndarray, steps: int) -> dict[str, Packed]:
    """Values (T, H) in equal ``steps`` between the smallest and the largest of each column."""
    low, high = (extreme.astype("float32") for extreme in (values.min(axis=0), values.max(axis=0)))
    step = (high - low) / numpy.float32(steps)
    codes = numpy.rint((values - low) / numpy.where(step > 0, step, 1))
    by_unit = codes.astype("uint8").T
    return {"low": pack(low), "step": pack(step), "codes": pack(by_unit)}


def rounded_to_fit(
    series: Sequence[numpy.ndarray], room: int
) -> tuple[int, list[dict[str, Packed]]]:
    """:func:`rounded` of every array, by the largest of ``STEPS`` with which all fit.

    Args:
        series: arrays (T, H).
        room: how many bytes they may take together. With the fewest steps they may take more.

    Returns:
        The steps, and the packed arrays.
    """
    for steps in STEPS:
        packed, left = [], room
        for values in series:
            packed.append(rounded(values, steps))
            left -= sum(len(part["data"]) for part in packed[-1].values())
            if left < 0 and steps != STEPS[-1]:
                break
        else:
            return steps, packed
    raise AssertionError("the last of STEPS is taken in any case")


def _compressed(values: numpy.ndarray) -> bytes:
    """By Huffman codes alone: activations repeat values, not sequences of values."""
    packer = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return packer.compress(values.tobytes()) + packer.flush()
