"""Penalties on what a recurrent layer puts out."""

from __future__ import annotations

from common.base_layer import Layer, batch_first, read_only, time_major
from common.kernels.passes import norm
from common.np import Array, Scalar


class TimeActivationPenalty(Layer):
    """Hands its input on, and while training adds a penalty on it to the loss.

        penalty = alpha * mean(h[t]²) + beta * mean((h[t+1] - h[t])²)

    The first term is activation regularization (AR), the second temporal activation regularization
    (TAR), within one window; a window of one step has none. The means are over all elements. Merity
    et al. (2017), "Revisiting Activation Regularization for Language RNNs".

    Args:
        alpha: weight of AR.
        beta: weight of TAR.

    Attributes:
        penalty: of the last ``forward``, a scalar; 0 where that was an evaluation. The model adds
            it to the loss.
        dout: the gradient of that loss, which scales the penalty's gradient. The model sets it
            before ``backward``.

    ``train_flg`` says whether ``forward`` computes the penalty; a model sets it.

    Raises:
        ValueError: for a weight below 0.
    """

    def __init__(self, alpha: float = 0.0, beta: float = 0.0) -> None:
        super().__init__()
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not weight >= 0:
                raise ValueError(
                    f"{type(self).__name__}: expected {name} of 0 or more, got {weight}"
                )
        self.alpha, self.beta = alpha, beta

    def forward(self, xs: Array) -> Array:
        """(N, T, D) -> the same numbers; computes ``penalty``."""
        self.penalty = 0.0
        if not self.train_flg:
            self.cache = None
            return xs
        self.expect_shape("xs", xs, "N", "T", "D")
        hs = time_major(xs)
        steps = hs[1:] - hs[:-1] if self.beta and len(hs) > 1 else None
        if self.alpha:
            self.penalty = self.penalty + self.alpha / hs.size * _sum_of_squares(hs)
        if steps is not None:
            self.penalty = self.penalty + self.beta / steps.size * _sum_of_squares(steps)
        self.cache = (hs, steps)
        return read_only(xs)

    def backward(self, dhs: Array) -> Array:
        """dxs = dhs + the gradient of ``dout`` times the penalty, both (N, T, D)."""
        hs, steps = self.saved()
        T, N, D = hs.shape
        self.expect_shape("dhs", dhs, N, T, D)
        dxs = time_major(dhs) + hs * (2 * self.dout * self.alpha / hs.size)
        if steps is not None:
            dsteps = steps * (2 * self.dout * self.beta / steps.size)
            dxs[1:] += dsteps
            dxs[:-1] -= dsteps
        return batch_first(dxs)


def _sum_of_squares(x: Array) -> Scalar:
    return norm([x]).astype("float64") ** 2  # float32 may not hold the square
