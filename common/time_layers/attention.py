"""Attention: a decoder looks at every step that an encoder has read, all its own steps at once.

N batch, S steps of the encoder, T of the decoder, H and K their widths, A of the additive scores.
"""

from __future__ import annotations

from typing import Any

import numpy

from common.base_layer import Layer, normal, read_only
from common.np import Array, np

__all__ = ["ATTENTIONS", "TimeAdditiveAttention", "TimeAttention", "TimeGeneralAttention"]


class TimeAttention(Layer):
    """c[t] = sum over s of a[t, s] e[s];  a[t] = softmax over s of score(d[t], e[s]).

    e are the outputs of an encoder, d those of a decoder. Here score(d, e) = d . e, "dot" of Luong
    et al. (2015), section 3.1, and both have one width; a subclass has another score.

    Attributes:
        attention_weights: a (N, T, S) of the last ``forward``, read-only; None before the first.
    """

    attention_weights: Any = None  # an array, once there was a pass

    @classmethod
    def build(cls, K: int, H: int, rng: numpy.random.Generator, dtype: str) -> TimeAttention:
        """A layer between a decoder of width K and an encoder of width H, with its weights."""
        return cls()

    def forward(self, hs_enc: Array, hs_dec: Array, mask: Array | None = None) -> Array:
        """Encoder (N, S, H) and decoder (N, T, K) -> context (N, T, H).

        Args:
            hs_enc: what is looked at.
            hs_dec: who looks.
            mask: (N, S), true where a step may be looked at; None for all. A context of no step at
                all is zero.

        Raises:
            ValueError: where shapes do not fit.
        """
        dtype = self.params[0].dtype if self.params else None
        hs_enc, hs_dec = np.asarray(hs_enc, dtype=dtype), np.asarray(hs_dec, dtype=dtype)
        self.expect_shape("hs_enc", hs_enc, "N", "S", self.width_of_encoder())
        N, S, H = hs_enc.shape
        self.expect_shape("hs_dec", hs_dec, N, "T", self.width_of_decoder(H))
        scores, of_scores = self.score(hs_enc, hs_dec)
        if mask is not None:
            self.expect_shape("mask", mask, N, S)
            mask = np.asarray(mask, dtype=bool)[:, None]
            scores = np.where(mask, scores, np.finfo(scores.dtype).min)
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        if mask is not None:
            weights *= mask
        sums = weights.sum(axis=2, keepdims=True)
        weights /= np.where(sums == 0, 1, sums)  # 0 where nothing may be looked at
        self.attention_weights = read_only(weights)
        self.cache = (hs_enc, hs_dec, weights, of_scores)
        return np.matmul(weights, hs_enc)

    def backward(self, dcontext: Array) -> tuple[Array, Array]:
        """(N, T, H) -> dhs_enc (N, S, H), dhs_dec (N, T, K)."""
        hs_enc, hs_dec, weights, of_scores = self.saved()
        (N, _, H), T = hs_enc.shape, hs_dec.shape[1]
        self.expect_shape("dcontext", dcontext, N, T, H)
        dcontext = np.asarray(dcontext, dtype=hs_enc.dtype)
        dweights = np.matmul(dcontext, hs_enc.swapaxes(1, 2))
        dscores = weights * dweights
        dscores -= weights * dscores.sum(axis=2, keepdims=True)
        dhs_enc, dhs_dec = self.back_score(dscores, hs_enc, hs_dec, of_scores)
        dhs_enc += np.matmul(weights.swapaxes(1, 2), dcontext)
        return dhs_enc, dhs_dec

    def width_of_encoder(self) -> int | str:
        """H, or its letter where any width will do."""
        return "H"

    def width_of_decoder(self, H: int) -> int:
        """K, for an encoder of width H."""
        return H

    def score(self, hs_enc: Array, hs_dec: Array) -> tuple[Array, Any]:
        """Scores (N, T, S), and what ``back_score`` needs of them."""
        return np.matmul(hs_dec, hs_enc.swapaxes(1, 2)), None

    def back_score(
        self, dscores: Array, hs_enc: Array, hs_dec: Array, of_scores: Any
    ) -> tuple[Array, Array]:
        """(N, T, S) -> dhs_enc (N, S, H), dhs_dec (N, T, K), new arrays; writes the gradients."""
        return np.matmul(dscores.swapaxes(1, 2), hs_dec), np.matmul(dscores, hs_enc)


class TimeGeneralAttention(TimeAttention):
    """score(d, e) = d W e, "general" of Luong et al. (2015), section 3.1.

    Args:
        W: (K, H).
    """

    param_names = ("W",)

    def __init__(self, W: Array) -> None:
        super().__init__(W)
        self.expect_shape("W", W, "K", "H")

    @classmethod
    def build(cls, K: int, H: int, rng: numpy.random.Generator, dtype: str) -> TimeAttention:
        """W is normal with 1 / sqrt(K)."""
        return cls(normal(rng, (K, H), K**-0.5, dtype))

    def width_of_encoder(self) -> int:
        """H of W."""
        return self.params[0].shape[1]

    def width_of_decoder(self, H: int) -> int:
        """K of W."""
        return len(self.params[0])

    def score(self, hs_enc: Array, hs_dec: Array) -> tuple[Array, Any]:
        """q = d W, then q . e."""
        q = np.matmul(hs_dec, self.params[0])
        return np.matmul(q, hs_enc.swapaxes(1, 2)), q

    def back_score(
        self, dscores: Array, hs_enc: Array, hs_dec: Array, of_scores: Any
    ) -> tuple[Array, Array]:
        """See ``TimeAttention``."""
        (W,), (dW,), q = self.params, self.grads, of_scores
        dq = np.matmul(dscores, hs_enc)
        dW[...] = _sum_of_products(hs_dec, dq)
        return np.matmul(dscores.swapaxes(1, 2), q), np.matmul(dq, W.T)


class TimeAdditiveAttention(TimeAttention):
    """score(d, e) = v . tanh(d W + e U), Bahdanau et al. (2015), appendix A.1.2.

    It keeps N T S A numbers for ``backward``.

    Args:
        W: (K, A).
        U: (H, A).
        v: (A,).
    """

    param_names = ("W", "U", "v")

    def __init__(self, W: Array, U: Array, v: Array) -> None:
        super().__init__(W, U, v)
        self.expect_shape("W", W, "K", "A")
        self.expect_shape("U", U, "H", W.shape[1])
        self.expect_shape("v", v, W.shape[1])

    @classmethod
    def build(cls, K: int, H: int, rng: numpy.random.Generator, dtype: str) -> TimeAttention:
        """A is K; W is normal with 1 / sqrt(K), U with 1 / sqrt(H), v with 1 / sqrt(A)."""
        W, U = normal(rng, (K, K), K**-0.5, dtype), normal(rng, (H, K), H**-0.5, dtype)
        return cls(W, U, normal(rng, (K,), K**-0.5, dtype))

    def width_of_encoder(self) -> int:
        """H of U."""
        return len(self.params[1])

    def width_of_decoder(self, H: int) -> int:
        """K of W."""
        return len(self.params[0])

    def score(self, hs_enc: Array, hs_dec: Array) -> tuple[Array, Any]:
        """z = tanh(d W + e U) (N, T, S, A), then z . v."""
        W, U, v = self.params
        z = np.tanh(np.matmul(hs_dec, W)[:, :, None] + np.matmul(hs_enc, U)[:, None])
        return np.matmul(z, v), z

    def back_score(
        self, dscores: Array, hs_enc: Array, hs_dec: Array, of_scores: Any
    ) -> tuple[Array, Array]:
        """See ``TimeAttention``."""
        (W, U, v), (dW, dU, dv), z = self.params, self.grads, of_scores
        dv[...] = np.matmul(dscores.reshape(-1), z.reshape(-1, len(v)))
        dsum = (1 - z * z) * v  # of d W + e U
        dsum *= dscores[..., None]
        of_dec, of_enc = dsum.sum(axis=2), dsum.sum(axis=1)
        dW[...] = _sum_of_products(hs_dec, of_dec)
        dU[...] = _sum_of_products(hs_enc, of_enc)
        return np.matmul(of_enc, U.T), np.matmul(of_dec, W.T)


def _sum_of_products(xs: Array, dys: Array) -> Array:
    """The gradient (D, H) of a matrix between xs (N, T, D) and ys (N, T, H)."""
    return np.matmul(xs.reshape(-1, xs.shape[2]).T, dys.reshape(-1, dys.shape[2]))


ATTENTIONS: dict[str, type[TimeAttention]] = {
    "dot": TimeAttention,
    "general": TimeGeneralAttention,
    "additive": TimeAdditiveAttention,
}
