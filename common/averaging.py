"""Averages of the weights along the way, to be evaluated in place of the last weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.kernels import over_rows
from common.np import Array, np

__all__ = ["WeightAverage", "validation_got_worse"]


class WeightAverage:
    """Mean of the weights after each update since this object was made.

    With a_t the average after t updates and w_t the weights,

        a_t = a_{t-1} + rate_t (w_t - a_{t-1})

    Without a decay rate_t = 1 / t: the uniform mean (Polyak and Juditsky 1992; after a trigger, the
    averaging of Merity et al. 2018). With one rate_t = (1 - decay) / (1 - decay^t): the exponential
    mean with bias correction, as Adam's, so the weights before the first update have no share.

    Args:
        params: the arrays that are averaged, a tied one once; they are read, never rebound.
        decay: None, or in 0 <= decay < 1.

    Attributes:
        count: updates so far, t; before the first the average is the weights as they were.

    Raises:
        ValueError: for a decay out of range.
    """

    def __init__(self, params: Sequence[Array], decay: float | None = None) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"WeightAverage: expected a decay in [0, 1), got {decay}")
        self.params = list(params)
        self.decay = decay
        self.count = 0
        self.averages = [np.array(param) for param in self.params]

    def update(self) -> None:
        """Take in the weights as they are now; call it after each of the optimizer's updates."""
        self.count += 1
        if self.decay is None:
            rate = 1 / self.count
        else:
            rate = (1 - self.decay) / (1 - self.decay**self.count)
        for param, average in zip(self.params, self.averages, strict=True):
            if rate == 1:
                average[...] = param
                continue

            def approach(rows: slice, param: Array = param, average: Array = average) -> None:
                step = param[rows] - average[rows]
                step *= rate
                average[rows] += step

            over_rows(approach, param)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's arrays hold the averages; afterwards the weights, bit for bit."""
        weights = [np.array(param) for param in self.params]
        try:
            for param, average in zip(self.params, self.averages, strict=True):
                param[...] = average
            yield
        finally:
            for param, weight in zip(self.params, weights, strict=True):
                param[...] = weight

    def state_dict(self) -> dict[str, Array | float | None]:
        """``{"count": 3, "decay": None, "average.0": array, ...}``; the arrays are copies."""
        averages = {f"average.{k}": np.array(a) for k, a in enumerate(self.averages)}
        return {"count": self.count, "decay": self.decay, **averages}

    def load_state_dict(self, state: dict[str, Array | float | None]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: where a key is missing or left over, or decay or a shape is another.
        """
        names = [f"average.{k}" for k in range(len(self.averages))]
        if set(state) != {"count", "decay", *names}:
            raise ValueError(
                f"WeightAverage: expected count, decay and {len(names)} averages, "
                f"got {sorted(state)}"
            )
        if state["decay"] != self.decay:
            raise ValueError(
                f"WeightAverage: expected the state of decay {self.decay}, got {state['decay']}"
            )
        arrays = [np.asarray(state[name]) for name in names]
        for name, array, average in zip(names, arrays, self.averages, strict=True):
            if array.shape != average.shape:
                raise ValueError(
                    f"WeightAverage: expected {name} of shape {average.shape}, got {array.shape}"
                )
        for array, average in zip(arrays, self.averages, strict=True):
            average[...] = array
        self.count = int(state["count"])  # type: ignore[arg-type]


def validation_got_worse(values: Sequence[float], window: int = 5) -> bool:
    """Whether it is time to average: some value is worse than the best one long before it.

    With v_0 .. v_t the validation losses or perplexities so far, that is so if for some t

        t > n  and  v_t > min(v_0 .. v_{t-n-1})

    Merity et al. (2018), Algorithm 1.

    Args:
        values: one for each validation, in order.
        window: n, how many of the values before v_t are left out of the comparison.

    Raises:
        ValueError: for a window below 0, or a value that is not a number.
    """
    if window < 0:
        raise ValueError(f"validation_got_worse: expected a window of 0 or more, got {window}")
    if any(math.isnan(value) for value in values):
        raise ValueError("validation_got_worse: expected numbers, got nan")
    return any(values[t] > min(values[: t - window]) for t in range(window + 1, len(values)))
