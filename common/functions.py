"""Stateless maths: activations, softmax and losses, stable at any finite input."""

from __future__ import annotations

import numpy

from common.np import GPU, Array, Scalar, array_of, np

__all__ = [
    "GPU",
    "cross_entropy_error",
    "log_softmax",
    "np",
    "one_hot",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), written as (1 + tanh(x / 2)) / 2, which never overflows."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) along the last axis; shifted by the maximum, so it never overflows."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def log_softmax(x: Array) -> Array:
    """log(softmax(x)) along the last axis, without the underflow of taking the two in turn."""
    y = x - x.max(axis=-1, keepdims=True)
    return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))


def cross_entropy_error(y: Array, t: Array) -> Scalar:
    """Mean of -log(y[n, t[n]]) over the rows.

    For the loss of raw scores use :func:`log_softmax` or a layer with loss: once a probability
    has underflowed to 0, its logarithm is lost.

    Args:
        y: probabilities (N, V).
        t: class ids (N,), or one-hot rows (N, V).

    Raises:
        ValueError: where the shapes do not fit, or there is no row.
    """
    if y.ndim == 1:
        y, t = y.reshape(1, -1), t.reshape(1, -1) if t.size == y.size else t.reshape(1)
    t = t.argmax(axis=1) if t.shape == y.shape and y.shape[1] > 1 else t.reshape(-1)
    if len(t) != len(y) or len(t) == 0:
        expected = len(y) or "1 or more"
        raise ValueError(f"cross_entropy_error: expected {expected} targets, got {len(t)}")
    smallest = np.finfo(y.dtype).tiny  # log(0) would be -inf
    return -np.log(np.maximum(y[np.arange(len(y)), t], smallest)).mean()


def one_hot(ids: Array, size: int, dtype: str = "float32") -> Array:
    """Rows of the identity matrix: ``ids`` of any shape (...) -> (..., size).

    Raises:
        ValueError: where an id is outside 0 .. size - 1. What is on a device already is not looked
            at: that would wait for it.
    """
    ids = array_of(ids)
    if isinstance(ids, numpy.ndarray) and ids.size and (ids.min() < 0 or ids.max() >= size):
        raise ValueError(f"one_hot: expected ids in 0..{size - 1}, got {ids.min()}..{ids.max()}")
    return np.eye(size, dtype=dtype)[np.asarray(ids)]
