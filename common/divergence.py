"""Numbers that are no longer finite: noticed, and traced to the layer where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.np import Array, memory_address, np
from common.optimizer import UniqueParameters

__all__ = [
    "DivergenceError",
    "all_finite",
    "first_not_finite",
]


class DivergenceError(RuntimeError):
    """A loss, a gradient or a weight is not finite."""


def named_params(model: Any) -> dict[str, Array]:
    """The model's own names of its parameters; "parameter 1" and so on where it has none."""
    if hasattr(model, "named_params"):
        return model.named_params()
    return {f"parameter {k}": param for k, param in enumerate(model.params, start=1)}


def all_finite(arrays: Iterable[Array]) -> bool:
    """Whether every number is finite; waits for the device."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def first_not_finite(model: Any, parameters: UniqueParameters) -> str:
    """Where the first number is that is not finite: in a parameter, else in a gradient.

    Args:
        model: gives the names.
        parameters: the model's, with the gradients of the last backward pass.
    """
    params = named_params(model)
    for name, param in params.items():
        if not all_finite([param]):
            return f"first in the parameter {name}"
    pairs = zip(parameters.params, parameters.grads, strict=True)
    grads = {memory_address(param): grad for param, grad in pairs}
    for name, param in params.items():
        grad = grads.get(memory_address(param))
        if grad is not None and not all_finite([grad]):
            return f"first in the gradient of {name}"
    return "every parameter and gradient by itself is finite"
