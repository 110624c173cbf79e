"""Numbers that are no longer finite: noticed, and traced to the layer where they are."""

from __future__ import annotations

from typing import Any

from common.files.model_state import named_params
from common.kernels.passes import all_finite
from common.np import memory_address
from common.optimizer import UniqueParameters

__all__ = [
    "DivergenceError",
    "first_not_finite",
]


class DivergenceError(RuntimeError):
    """A loss, a gradient or a weight is not finite."""


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
