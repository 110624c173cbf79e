"""Parameters that are one array under two names, recognised by their memory."""

from __future__ import annotations

from collections.abc import Sequence

from common.np import Array, memory_address

__all__ = ["UniqueParameters"]


def _same(a: Array, b: Array) -> bool:
    return memory_address(a) == memory_address(b) and (a.shape, a.strides) == (b.shape, b.strides)


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
                if _same(param, known) or _same(param.T, known):
                    share = grad if _same(param, known) else grad.T
                    if memory_address(share) != memory_address(total):
                        self._shares.append((total, share))
                    break
            else:
                self.params.append(param)
                self.grads.append(grad)

    def add_tied(self) -> None:
        """Add the gradients of every tied parameter into the one that is kept."""
        for total, share in self._shares:
            total += share
