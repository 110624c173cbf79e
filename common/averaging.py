"""Averages of the weights along the way, to be evaluated in place of the last weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.kernels import over_rows
from common.np import Array, np
from common.row_gradient import RowGradient

__all__ = ["WeightAverage", "validation_got_worse"]


class WeightAverage:
    """Mean of the weights after each update since this object was made.

    With a_t the average after t updates and w_t the weights,

        a_t = a_{t-1} + rate_t (w_t - a_{t-1})

    Without a decay rate_t = 1 / t: the uniform mean (Polyak and Juditsky 1992; after a trigger, the
    averaging of Merity et al. 2018). With one rate_t = (1 - decay) / (1 - decay^t): the exponential
    mean with bias correction, as Adam's, so the weights before the first update have no share.

    Of a table whose gradient is rows (``RowGradient``) an update changes few rows. What the others
    add to the mean is made up for when they change, or when the mean is asked for: with a weight w
    that has not changed since update s,

        a_t = w + share (a_s - w),   share = s / t  or  decay^(t - s) (1 - decay^s) / (1 - decay^t)

    Args:
        params: the arrays that are averaged, a tied one once; they are read, never rebound.
        decay: None, or in 0 <= decay < 1.

    Attributes:
        count: updates so far, t; before the first the average is the weights as they were.
        averages: an array for each parameter; of a table with an entry in ``up_to`` each row is as
            it was after that update.
        up_to: by the place of such a table, the number of an update for each of its rows (V,).

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
        self.up_to: dict[int, Array] = {}

    def begin_update(self, grads: Sequence[Array | RowGradient]) -> None:
        """Look at the rows that an update is going to change; call it before each of them.

        Args:
            grads: the gradients of ``params``. Where all are arrays there is nothing to do.
        """
        for k, grad in enumerate(grads):
            if isinstance(grad, RowGradient):
                if k not in self.up_to:
                    self.up_to[k] = np.full(len(grad), self.count, dtype="int64")
                self.averages[k][grad.ids] = self._of_rows(k, grad.ids)
                self.up_to[k][grad.ids] = self.count
            elif k in self.up_to:
                self._write(k, self.averages[k])
                del self.up_to[k]

    def update(self) -> None:
        """Take in the weights as they are now; call it after each of the optimizer's updates."""
        self.count += 1
        if self.decay is None:
            rate = 1 / self.count
        else:
            rate = (1 - self.decay) / (1 - self.decay**self.count)
        for k, (param, average) in enumerate(zip(self.params, self.averages, strict=True)):
            if k in self.up_to:
                continue
            if rate == 1:
                average[...] = param
                continue

            def approach(rows: slice, param: Array = param, average: Array = average) -> None:
                step = param[rows] - average[rows]
                step *= rate
                average[rows] += step

            over_rows(approach, param)

    def _of_rows(self, k: int, rows: Array | slice) -> Array:
        """The average of some rows of a table, up to the last update."""
        w, average, s = (arrays[k][rows] for arrays in (self.params, self.averages, self.up_to))
        t, decay = self.count, self.decay
        if t == 0:
            return average
        older = s / t if decay is None else decay ** (t - s) * (1 - decay**s) / (1 - decay**t)
        return w + older.astype(w.dtype)[:, None] * (average - w)

    def _write(self, k: int, target: Array) -> None:
        """Let ``target``, of the shape of parameter k, or the parameter itself, be its average."""

        def write(rows: slice) -> None:
            target[rows] = self._of_rows(k, rows) if k in self.up_to else self.averages[k][rows]

        over_rows(write, target)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's arrays hold the averages; afterwards the weights, bit for bit."""
        weights = [np.array(param) for param in self.params]
        try:
            for k, param in enumerate(self.params):
                self._write(k, param)
            yield
        finally:
            for param, weight in zip(self.params, weights, strict=True):
                param[...] = weight

    def state_dict(self) -> dict[str, Array | float | None]:
        """``{"count": 3, "decay": None, "average.0": array, ...}``; the arrays are copies.

        Of a table with rows also ``"up_to.0"``.
        """
        averages = {f"average.{k}": np.array(a) for k, a in enumerate(self.averages)}
        up_to = {f"up_to.{k}": np.array(a) for k, a in self.up_to.items()}
        return {"count": self.count, "decay": self.decay, **averages, **up_to}

    def load_state_dict(self, state: dict[str, Array | float | None]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: where a key is missing or left over, or decay or a shape is another.
        """
        shapes = {f"average.{k}": a.shape for k, a in enumerate(self.averages)}
        tables = {f"up_to.{k}": k for k in range(len(self.averages)) if f"up_to.{k}" in state}
        shapes |= {name: self.averages[k].shape[:1] for name, k in tables.items()}
        if set(state) != {"count", "decay", *shapes}:
            raise ValueError(
                f"WeightAverage: expected count, decay and {len(self.averages)} averages, "
                f"got {sorted(state)}"
            )
        if state["decay"] != self.decay:
            raise ValueError(
                f"WeightAverage: expected the state of decay {self.decay}, got {state['decay']}"
            )
        arrays = {name: np.asarray(state[name]) for name in shapes}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(
                    f"WeightAverage: expected {name} of shape {shape}, got {arrays[name].shape}"
                )
        for k, average in enumerate(self.averages):
            average[...] = arrays[f"average.{k}"]
        self.up_to = {k: arrays[name].astype("int64") for name, k in tables.items()}
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
