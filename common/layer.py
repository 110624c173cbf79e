"""What every layer has: parameters, gradients, a cache, and checks that name the layer."""

from __future__ import annotations

import numpy

from common.np import Array, np


class Layer:
    """Base of all layers: ``params`` and ``grads`` are parallel lists.

    ``forward`` leaves in ``cache`` what ``backward`` needs. ``backward`` writes into the arrays
    in ``grads`` and changes neither the cache nor the gradient it was given, so calling it
    twice gives the same answer twice.
    """

    param_names: tuple[str, ...] = ()

    def __init__(self, *params: Array) -> None:
        self.params: list[Array] = list(params)
        self.grads: list[Array] = [np.zeros_like(p) for p in params]
        self.cache: tuple | None = None

    def saved(self) -> tuple:
        """What ``forward`` cached.

        Raises:
            RuntimeError: before a forward pass in training mode.
        """
        if self.cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no forward pass in training mode "
                "to go back through; call forward first"
            )
        return self.cache

    def expect_shape(self, name: str, x: Array, *shape: int | str) -> None:
        """Compare ``x.shape`` with numbers that must hold and letters that may be anything.

        Raises:
            ValueError: ``TimeLSTM: expected xs of shape (N, T, 650), got (20, 35, 100)``.
        """
        if len(shape) == x.ndim:
            for want, got in zip(shape, x.shape, strict=True):
                if want != got and not isinstance(want, str):
                    break
            else:
                return
        wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{type(self).__name__}: expected {name} of shape {wanted}, got {x.shape}")

    def expect_ids(self, name: str, ids: Array, size: int, lowest: int = 0) -> None:
        """Check that integer ids lie in ``lowest`` .. ``size - 1``.

        A device array is not read back for this: whoever puts a corpus on the GPU checks it once.

        Raises:
            TypeError: where the ids are not integers.
            ValueError: where one is out of range (NumPy would wrap a negative one silently).
        """
        if ids.dtype.kind not in "iu":
            raise TypeError(f"{type(self).__name__}: expected {name} of integers, got {ids.dtype}")
        if isinstance(ids, numpy.ndarray) and ids.size:
            if ids.size == 1:  # a token that is generated; each pass would take a microsecond
                low = high = ids.item()
            else:
                low, high = int(ids.min()), int(ids.max())
            if low < lowest or high >= size:
                raise ValueError(
                    f"{type(self).__name__}: expected {name} in {lowest}..{size - 1}, "
                    f"got {low if low < lowest else high}"
                )


class Recurrent(Layer):
    """Base of the cells and of their time layers: Wx (D, kH), Wh (H, kH), b (kH,), k gates."""

    param_names = ("Wx", "Wh", "b")
    num_gates = 1
    bias_blocks: tuple[int, ...] = (1,)  # how many blocks of H the bias may have

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        super().__init__(Wx, Wh, b)
        H, k = len(Wh), self.num_gates
        self.expect_shape("Wx", Wx, "D", k * H)
        self.expect_shape("Wh", Wh, H, k * H)
        if b.shape not in [(blocks * H,) for blocks in self.bias_blocks]:
            self.expect_shape("b", b, k * H)


def check_ratio(who: str, ratio: float) -> float:
    """``ratio`` if it is a probability of dropping that leaves something.

    Raises:
        ValueError: outside 0 <= ratio < 1.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"{who}: expected a dropout ratio in [0, 1), got {ratio}")
    return ratio
