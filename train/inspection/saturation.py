"""How often a gate is as good as shut, and how often as good as open."""

from __future__ import annotations

import numpy

__all__ = ["LEFT", "RIGHT", "saturated"]

LEFT, RIGHT = 0.1, 0.9


def saturated(values: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The share of tokens at which each unit of a gate is left- and right-saturated.

    Left is below 0.1, right above 0.9, as in figure 3 of Karpathy, Johnson and Fei-Fei (2015),
    "Visualizing and Understanding Recurrent Networks". The two shares add up to 1 at most.

    Args:
        values: of a sigmoid gate, (T, H).

    Returns:
        Left and right, float32 (H,) each.
    """
    return tuple((part.mean(axis=0).astype("float32")) for part in (values < LEFT, values > RIGHT))
