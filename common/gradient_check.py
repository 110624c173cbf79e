"""Hand-written gradients against differences of the loss itself, in float64.

The difference is central and of fourth order,

    f'(x) ~ (f(x - 2e) - 8 f(x - e) + 8 f(x + e) - f(x + 2e)) / 12e,

whose error at e = 1e-3 is near 1e-12 for a smooth f, so a tolerance of 1e-6 leaves nothing to luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from common.np import Array, np
from common.row_gradient import dense

__all__ = ["Report", "check_gradients", "check_layer", "check_model"]

EPS = 1e-3
TOLERANCE = 1e-6
# An element below this share of its array's largest gradient is measured against that share.
SMALL = 1e-3


@dataclass(frozen=True)
class Worst:
    """The element of one array where the two gradients differ most."""

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float


@dataclass(frozen=True)
class Report:
    """What was checked, how, and where each array is worst."""

    subject: str
    worst: tuple[Worst, ...]
    eps: float
    tolerance: float

    @property
    def error(self) -> float:
        """The worst relative error of all arrays; NaN if there is one."""
        return float(numpy.max([w.error for w in self.worst]))

    @property
    def ok(self) -> bool:
        """Whether every array is within the tolerance."""
        return self.error < self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "WRONG"
        head = (
            f"{self.subject}: {verdict}, worst relative error {self.error:.1e} "
            f"(tolerance {self.tolerance:.0e}, eps {self.eps:.0e}, float64)"
        )
        rows = [
            f"  {w.name}{list(w.index)}: by hand {w.analytic:+.9e}, "
            f"by differences {w.numeric:+.9e}, relative error {w.error:.1e}"
            for w in self.worst
        ]
        return "\n".join([head, *rows])


def _numeric_gradient(loss: Callable[[], float], x: Array, eps: float) -> Array:
    gradient = np.empty_like(x)
    for index in numpy.ndindex(x.shape):
        kept = x[index].copy()
        difference = 0.0
        for steps, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            x[index] = kept + steps * eps
            difference += weight * float(loss())
        x[index] = kept
        gradient[index] = difference / (12 * eps)
    return gradient


def check_gradients(
    subject: str,
    loss: Callable[[], float],
    gradients: Mapping[str, tuple[Array, Array]],
    eps: float = EPS,
    tolerance: float = TOLERANCE,
) -> Report:
    """Compare gradients with differences of ``loss``, element by element.

    Args:
        subject: what the report is called.
        loss: computes the loss from the arrays as they are at the moment of the call.
        gradients: for each name the array that ``loss`` reads and its gradient.
        eps: step of the differences.
        tolerance: greatest relative error that passes.

    Raises:
        TypeError: for an array that is not float64.
        ValueError: for a gradient of another shape than its array, or nothing to check.
    """
    worst = []
    for name, (x, analytic) in gradients.items():
        if x.dtype != np.float64:
            raise TypeError(f"check_gradients: expected {name} in float64, got {x.dtype}")
        if analytic.shape != x.shape:
            raise ValueError(
                f"check_gradients: expected the gradient of {name} of shape {x.shape}, "
                f"got {analytic.shape}"
            )
        numeric = _numeric_gradient(loss, x, eps)
        size = np.maximum(abs(analytic), abs(numeric))
        floor = SMALL * np.nanmax(size) + 1e-9
        errors = abs(analytic - numeric) / np.maximum(size, floor)
        index = tuple(int(k) for k in numpy.unravel_index(int(errors.argmax()), x.shape))
        values = (float(a[index]) for a in (analytic, numeric, errors))
        worst.append(Worst(name, index, *values))
    if not worst:
        raise ValueError("check_gradients: nothing to check")
    return Report(subject, tuple(worst), eps, tolerance)


def _as_tuple(x: Any) -> tuple:
    return x if isinstance(x, tuple) else (x,)


def check_layer(
    layer: Any,
    *inputs: Array,
    rng: numpy.random.Generator,
    prepare: Callable[[], None] = lambda: None,
    extra: Callable[[], Mapping[str, tuple[Array, Array]]] = dict,
    subject: str | None = None,
) -> Report:
    """Check every parameter and every floating-point input of one layer.

    The loss is the sum of the outputs, each times a random number.

    Args:
        layer: has ``forward(*inputs)`` and ``backward`` that takes a gradient for each output
            and returns one for each input.
        inputs: float64 arrays, or integer arrays, which have no gradient.
        rng: draws the random numbers.
        prepare: called before each forward pass: restores a state, repeats a mask.
        extra: called after ``backward``: further arrays with their gradients, such as a state.
        subject: the report's title; the layer's class if None.

    Raises:
        TypeError: for a parameter or an input that is not float64.
        ValueError: where ``backward`` returns no gradient for an input, or one of another shape.
    """
    prepare()
    outputs = _as_tuple(layer.forward(*inputs))
    weights = [np.asarray(rng.standard_normal(y.shape)) for y in outputs]

    def loss() -> float:
        prepare()
        ys = _as_tuple(layer.forward(*inputs))
        return sum(float((w * y).sum()) for w, y in zip(weights, ys, strict=True))

    dinputs = _as_tuple(layer.backward(*weights))
    names = layer.param_names or map(str, range(len(layer.params)))
    gradients = {
        name: (param, dense(grad).copy())
        for name, param, grad in zip(names, layer.params, layer.grads, strict=True)
    }
    for k, x in enumerate(inputs):
        if x.dtype.kind == "f":
            if k >= len(dinputs) or dinputs[k] is None:
                raise ValueError(f"check_layer: backward returned no gradient for input {k}")
            gradients[f"input{k}"] = (x, dinputs[k])
    gradients.update(extra())
    return check_gradients(subject or type(layer).__name__, loss, gradients)


def check_model(
    model: Any,
    xs: Array,
    ts: Array,
    prepare: Callable[[], None] = lambda: None,
    subject: str | None = None,
) -> Report:
    """Check every parameter of a model on one window, a tied one with its whole gradient.

    Args:
        model: built with ``dtype="float64"``.
        xs: inputs.
        ts: targets.
        prepare: called before each forward pass: restores the state, repeats the masks.
        subject: the report's title; the model's class if None.

    Raises:
        TypeError: for a parameter that is not float64.
    """

    def loss() -> float:
        prepare()
        return float(model.forward(xs, ts))

    loss()
    model.backward()
    gradients = {
        name: (param, dense(grad).copy())
        for name, param, grad in zip(model.named_params(), model.params, model.grads, strict=True)
    }
    return check_gradients(subject or type(model).__name__, loss, gradients)
