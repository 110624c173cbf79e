"""What stands between gradients and weights: ties, clipping, update rules.

A rule changes the parameters in place: ``update(params, grads)``. Formulas and defaults are
PyTorch's, so that both give the same weights step by step. State is kept by the parameter's place
in the list; ``state_dict`` gives it as one flat dict of arrays and numbers, ready for a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.kernels.passes import add_scaled, clip, norm
from common.np import GPU, Array, Parts, in_one_piece, memory_address, np, same_elements
from common.row_gradient import RowGradient

__all__ = [
    "GPU",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "UniqueParameters",
    "clip_grads",
    "clip_grads_value",
    "np",
    "remove_duplicate",
]


class UniqueParameters:
    """Each parameter once, with one gradient.

    A model may list a tied weight twice, as the same array or as a transposed view of the same
    memory (``TimeAffine(embed_W.T, b)``), with a gradient array for each. That is found here,
    once, by address and strides. ``add_tied`` then adds up the gradients after each backward pass.

    Args:
        params: the model's parameters.
        grads: their gradients, in the same order.
    """

    def __init__(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        self.params: list[Array] = []
        self.grads: list[Array] = []
        self._shares: list[tuple[Array, Array]] = []
        for param, grad in zip(params, grads, strict=True):
            for known, total in zip(self.params, self.grads, strict=True):
                if same_elements(param, known) or same_elements(param.T, known):
                    share = grad if same_elements(param, known) else grad.T
                    if memory_address(share) != memory_address(total):
                        self._shares.append((total, share))
                    break
            else:
                self.params.append(param)
                self.grads.append(grad)
        self.params, self.grads = Parts(self.params), Parts(self.grads)

    def add_tied(self) -> None:
        """Add the gradients of every tied parameter into the one that is kept."""
        for total, share in self._shares:
            total += share


def remove_duplicate(
    params: Sequence[Array], grads: Sequence[Array]
) -> tuple[list[Array], list[Array]]:
    """Each parameter once; the gradients of one that is tied are added up, in place.

    Only what shares its memory is tied: two weights that happen to be equal stay two.
    """
    unique = UniqueParameters(params, grads)
    unique.add_tied()
    return unique.params, unique.grads


def clip_grads(grads: Sequence[Array], max_norm: float) -> Array:
    """Scale all gradients, in place, so that their global L2 norm is at most ``max_norm``.

    Pascanu et al. (2013).

    Returns:
        The norm before clipping.

    Raises:
        ValueError: for a ``max_norm`` that is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grads: expected max_norm above 0, got {max_norm}")
    before = norm(grads)
    clip(grads, before, max_norm)
    return before


def clip_grads_value(grads: Sequence[Array], max_value: float) -> None:
    """Clip every element, in place, into ``[-max_value, max_value]``.

    Raises:
        ValueError: for a ``max_value`` that is not above 0.
    """
    if not max_value > 0:
        raise ValueError(f"clip_grads_value: expected max_value above 0, got {max_value}")
    for grad in grads:
        numbers = grad.rows if isinstance(grad, RowGradient) else grad
        np.clip(numbers, -max_value, max_value, out=numbers)


class Optimizer:
    """What all rules share: one array per slot and parameter, made at the first update.

    A rule is a list of slot names and ``_step``, which changes one parameter.

    Where a gradient is the rows that were read (``RowGradient``), a rule changes those rows alone,
    of the weights and of the state. By SGD and AdaGrad the others would stay as they are anyway.
    The other rules are lazy, as PyTorch's ``SparseAdam``: velocities and running means of rows that
    were not read neither decay nor move weights; ``iter`` counts every update. Weight decay draws
    the rows that were read.

    Raises:
        ValueError: for a learning rate below 0, or one that is not finite.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        if not 0 <= lr < float("inf"):
            raise ValueError(
                f"{type(self).__name__}: expected a finite learning rate of 0 or more, got {lr}"
            )
        self.lr = lr
        self.iter = 0
        self.state: dict[str, list[Array]] = {}

    def update(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        """Change every array of ``params`` in place by the gradient at the same index.

        Raises:
            ValueError: where the lists, their shapes, or the state kept so far do not fit.
        """
        who = type(self).__name__
        if [p.shape for p in params] != [g.shape for g in grads]:
            raise ValueError(f"{who}: expected one gradient of the same shape for each parameter")
        if not self.state:
            self.state = {slot: [np.zeros_like(p) for p in params] for slot in self.slots}
        for arrays in self.state.values():
            if [a.shape for a in arrays] != [p.shape for p in params]:
                raise ValueError(f"{who}: its state belongs to parameters of other shapes")
        self.iter += 1
        params, grads = (params, grads) if self.slots else in_one_piece(params, grads)
        for k, (param, grad) in enumerate(zip(params, grads, strict=True)):
            step = grad.by_rows(self._step) if isinstance(grad, RowGradient) else self._step
            step(param, grad, *(self.state[slot][k] for slot in self.slots))

    _step: Callable[..., None]

    def state_dict(self) -> dict[str, Array | float]:
        """``{"lr": 0.1, "iter": 3, "m.0": array, ...}``; the arrays are copies."""
        arrays = {
            f"{slot}.{k}": array.copy()
            for slot, kept in self.state.items()
            for k, array in enumerate(kept)
        }
        return {"lr": self.lr, "iter": self.iter, **arrays}

    def load_state_dict(self, state: dict[str, Array | float]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: where a key is missing or belongs to another rule.
        """
        numbers, arrays = {"lr", "iter"}, sorted(set(state) - {"lr", "iter"})
        expected = [
            f"{slot}.{k}" for slot in self.slots for k in range(len(arrays) // len(self.slots))
        ]
        if not numbers <= set(state) or arrays != sorted(expected):
            raise ValueError(
                f"{type(self).__name__}: expected lr, iter and the slots {self.slots}, "
                f"got {sorted(state)}"
            )
        self.lr, self.iter = float(state["lr"]), int(state["iter"])
        self.state = {
            slot: [np.array(state[f"{slot}.{k}"]) for k in range(len(arrays) // len(self.slots))]
            for slot in self.slots
            if arrays
        }


class SGD(Optimizer):
    """w -= lr * (g + weight_decay * w)."""

    def __init__(self, lr: float = 0.01, weight_decay: float = 0.0) -> None:
        super().__init__(lr)
        self.weight_decay = weight_decay

    def _step(self, param: Array, grad: Array) -> None:
        if self.weight_decay:
            param *= 1 - self.lr * self.weight_decay
        add_scaled(param, -self.lr, grad)


class Momentum(Optimizer):
    """v = momentum * v + g;  w -= lr * v.  Polyak (1964)."""

    slots = ("velocity",)

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = momentum

    def _step(self, param: Array, grad: Array, v: Array) -> None:
        v *= self.momentum
        v += grad
        param -= self.lr * v


class Nesterov(Momentum):
    """v = momentum * v + g;  w -= lr * (g + momentum * v).  Sutskever et al. (2013)."""

    def _step(self, param: Array, grad: Array, v: Array) -> None:
        v *= self.momentum
        v += grad
        param -= self.lr * (grad + self.momentum * v)


class AdaGrad(Optimizer):
    """v += g²;  w -= lr * g / (sqrt(v) + eps).  Duchi et al. (2011)."""

    slots = ("sum_of_squares",)

    def __init__(self, lr: float = 0.01, eps: float = 1e-10) -> None:
        super().__init__(lr)
        self.eps = eps

    def _step(self, param: Array, grad: Array, v: Array) -> None:
        v += grad * grad
        param -= self.lr * grad / (np.sqrt(v) + self.eps)


class RMSprop(Optimizer):
    """v = decay * v + (1 - decay) * g²;  w -= lr * g / (sqrt(v) + eps).  Hinton (2012)."""

    slots = ("mean_square",)

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(lr)
        self.decay_rate, self.eps = decay_rate, eps

    def _step(self, param: Array, grad: Array, v: Array) -> None:
        v *= self.decay_rate
        v += (1 - self.decay_rate) * grad * grad
        param -= self.lr * grad / (np.sqrt(v) + self.eps)


class Adam(Optimizer):
    """w -= lr * m / (sqrt(v) + eps); m, v are running means of g, g² over 1 - beta^iter.

    Kingma and Ba (2015), Algorithm 1.
    """

    slots = ("m", "v")

    def __init__(
        self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(lr)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _step(self, param: Array, grad: Array, m: Array, v: Array) -> None:
        m += (1 - self.beta1) * (grad - m)
        v *= self.beta2
        v += (1 - self.beta2) * grad * grad
        m_scale = 1 / (1 - self.beta1**self.iter)
        v_scale = 1 / (1 - self.beta2**self.iter) ** 0.5
        param -= (self.lr * m_scale) * m / (v_scale * np.sqrt(v) + self.eps)


class AdamW(Adam):
    """Adam after w *= 1 - lr * weight_decay.  Loshchilov and Hutter (2019)."""

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps)
        self.weight_decay = weight_decay

    def _step(self, param: Array, grad: Array, m: Array, v: Array) -> None:
        param *= 1 - self.lr * self.weight_decay
        super()._step(param, grad, m, v)
