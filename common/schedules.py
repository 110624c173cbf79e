"""Learning rates that change with the epochs done.

A rate follows from the place that a run has reached, so a run that was stopped finds its rate
again. Decay on a plateau looks at validation and is not of this kind: it stays with the scripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "schedule"]

# The share of the full rate that is left after a share p of the epochs since warm-up.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda p: 1.0,
    "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,  # Loshchilov and Hutter (2017), eq. 5
    "linear": lambda p: 1 - p,
}


def schedule(name: str, lr: float, epochs: float, warmup: float = 0.0) -> Callable[[float], float]:
    """The learning rate as a function of epochs done, such as 2.5 in mid epoch 3.

    It rises in a straight line from 0 to ``lr`` over ``warmup`` epochs. Then "constant" stays;
    "cosine" and "linear" reach 0 after ``epochs`` and stay there.

    Raises:
        ValueError: for another name or a number out of range, also of epochs done.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule: expected a name of {', '.join(SCHEDULES)}, got {name!r}")
    for what, value in (("lr", lr), ("warmup", warmup)):
        if not 0 <= value < math.inf:
            raise ValueError(f"schedule: expected {what} of 0 or more, got {value}")
    if name != "constant" and not warmup < epochs < math.inf:
        raise ValueError(
            f"schedule: expected more epochs than the {warmup} of warm-up, got {epochs}"
        )

    def rate(epochs_done: float) -> float:
        if not epochs_done >= 0:
            raise ValueError(f"schedule: expected epochs done of 0 or more, got {epochs_done}")
        if epochs_done < warmup:
            return lr * epochs_done / warmup
        p = min((epochs_done - warmup) / (epochs - warmup), 1.0) if epochs > warmup else 1.0
        return lr * SCHEDULES[name](p)

    return rate
