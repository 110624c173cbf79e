"""Learning rates as pure functions of epochs done: ``schedule(2.5)`` is that of mid epoch 3.

A schedule holds no state, so a run that was stopped finds its rate by the place that it has
reached. Decay on a plateau looks at validation and is not of this kind: it stays with the scripts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEDULES", "Constant", "Cosine", "Linear", "Schedule", "build_schedule"]


def _check(who: str, name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{who}: expected {name} of 0 or more, got {value}")


@dataclass(frozen=True)
class Schedule(ABC):
    """What all share: a rate that rises in a straight line from 0 to ``lr`` over ``warmup`` epochs.

    Args:
        lr: the highest rate.
        warmup: epochs until it is reached, fractions allowed; 0 for none.
    """

    lr: float
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check(type(self).__name__, "lr", self.lr)
        _check(type(self).__name__, "warmup", self.warmup)

    def __call__(self, epochs_done: float) -> float:
        """The rate after so many epochs, such as 2.5.

        Raises:
            ValueError: for a negative number.
        """
        _check(type(self).__name__, "epochs_done", epochs_done)
        if epochs_done < self.warmup:
            return self.lr * epochs_done / self.warmup
        return self._after_warmup(epochs_done)

    @abstractmethod
    def _after_warmup(self, epochs_done: float) -> float: ...


@dataclass(frozen=True)
class Constant(Schedule):
    """``lr``, after the warm-up."""

    def _after_warmup(self, epochs_done: float) -> float:
        return self.lr


@dataclass(frozen=True)
class _Decay(Schedule):
    """From ``lr`` at the end of the warm-up down to ``final`` at ``epochs``, and ``final`` after.

    Args:
        lr: the highest rate.
        warmup: epochs until it is reached.
        epochs: where ``final`` is reached, above ``warmup``.
        final: the last rate, at most ``lr``.
    """

    epochs: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        if not self.warmup < self.epochs < math.inf:
            raise ValueError(
                f"{who}: expected more epochs than the {self.warmup} of warm-up, got {self.epochs}"
            )
        if not 0 <= self.final <= self.lr:
            raise ValueError(f"{who}: expected final in 0..{self.lr}, got {self.final}")

    def _progress(self, epochs_done: float) -> float:
        return min((epochs_done - self.warmup) / (self.epochs - self.warmup), 1.0)


@dataclass(frozen=True)
class Cosine(_Decay):
    """final + (lr - final) (1 + cos(pi p)) / 2, p from 0 to 1 after the warm-up.

    Loshchilov and Hutter (2017), equation 5, without restarts; arguments as for ``Linear``.
    """

    def _after_warmup(self, epochs_done: float) -> float:
        share = (1 + math.cos(math.pi * self._progress(epochs_done))) / 2
        return self.final + (self.lr - self.final) * share


@dataclass(frozen=True)
class Linear(_Decay):
    """final + (lr - final) (1 - p), p from 0 to 1 after the warm-up.

    Args:
        lr: the highest rate.
        warmup: epochs until it is reached.
        epochs: where ``final`` is reached, above ``warmup``.
        final: the last rate, at most ``lr``.
    """

    def _after_warmup(self, epochs_done: float) -> float:
        return self.final + (self.lr - self.final) * (1 - self._progress(epochs_done))


SCHEDULES: dict[str, Any] = {"constant": Constant, "cosine": Cosine, "linear": Linear}


def build_schedule(
    name: str, lr: float, epochs: float, warmup: float = 0.0, final: float = 0.0
) -> Schedule:
    """The schedule of that name; ``epochs`` and ``final`` mean nothing to "constant".

    Args:
        name: "constant", "cosine" or "linear".
        lr: the highest rate.
        epochs: where a decay ends.
        warmup: epochs over which the rate rises from 0.
        final: the rate at which a decay ends.

    Raises:
        ValueError: for another name, a number out of range, or a ``final`` that would be ignored.
    """
    if name not in SCHEDULES:
        expected = ", ".join(map(repr, SCHEDULES))
        raise ValueError(f"build_schedule: expected a name of {expected}, got {name!r}")
    if name == "constant":
        if final != 0:
            raise ValueError(f"build_schedule: 'constant' has no final rate, got {final}")
        return Constant(lr, warmup)
    return SCHEDULES[name](lr, warmup, epochs, final)
