"""Gradient clipping and perplexity."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
from tqdm import tqdm

from common.batches import streams, windows
from common.exact_protocol import inputs_and_targets, perplexity_of
from common.np import Array, np, to_cpu, to_gpu
from common.vectors import norm, scale

__all__ = [
    "clip_grads",
    "clip_grads_value",
    "eval_perplexity",
    "eval_perplexity_exact",
    "evaluation",
    "np",
    "to_cpu",
    "to_gpu",
]


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
    rate = np.minimum(max_norm / (before + 1e-6), 1)
    if isinstance(rate, numpy.floating) and rate == 1:  # known at no cost on the CPU only
        return before
    for grad in grads:
        scale(grad, rate)
    return before


def clip_grads_value(grads: Sequence[Array], max_value: float) -> None:
    """Clip every element, in place, into ``[-max_value, max_value]``.

    Raises:
        ValueError: for a ``max_value`` that is not above 0.
    """
    if not max_value > 0:
        raise ValueError(f"clip_grads_value: expected max_value above 0, got {max_value}")
    for grad in grads:
        np.clip(grad, -max_value, max_value, out=grad)


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """Inside, the model starts from a zero state; afterwards its training state is back.

    Models without ``get_state`` are left in the zero state.
    """
    state = model.get_state() if hasattr(model, "get_state") else None
    model.reset_state()
    try:
        yield
    finally:
        model.reset_state()
        if state is not None:
            model.set_state(state)


def _mean_nll(model: Any, xs: Array, ts: Array, time_size: int) -> float:
    """Mean negative log-likelihood of ``ts`` given ``xs``, both (N, length); dropout off."""
    options = {}
    if "train_flg" in inspect.signature(model.forward).parameters:
        options["train_flg"] = False
    N, length = xs.shape
    total = 0.0
    with (
        evaluation(model),
        tqdm(total=N * length, unit=" tokens", desc="perplexity", leave=False, disable=None) as bar,
    ):
        for window in windows(length, time_size):
            loss = model.forward(xs[:, window], ts[:, window], **options)
            count = N * (window.stop - window.start)
            total += float(loss) * count
            bar.update(count)
    return total / (N * length)


def eval_perplexity(model: Any, corpus: Array, batch_size: int = 10, time_size: int = 35) -> float:
    """Perplexity by the book's protocol: ``batch_size`` streams, the incomplete end dropped.

    The corpus is read in whole windows only, each stream starts from a zero state somewhere in
    the text, and a few hundred targets are never asked for. For comparison with the book; the
    measure to publish is :func:`eval_perplexity_exact`.

    Args:
        model: has ``forward(xs, ts)`` and ``reset_state()``; its training state is kept.
        corpus: token ids (length,).
        batch_size: number of streams N.
        time_size: steps per window T.

    Raises:
        ValueError: where the corpus has fewer than N T + 1 tokens.
    """
    corpus = np.asarray(corpus)
    num_windows = (len(corpus) - 1) // (batch_size * time_size) if batch_size * time_size else 0
    if num_windows < 1:
        raise ValueError(
            f"eval_perplexity: expected at least {batch_size * time_size + 1} tokens "
            f"(batch {batch_size} times {time_size} steps, and one), got {len(corpus)}"
        )
    columns = slice(0, num_windows * time_size)
    xs = streams(corpus[:-1], batch_size, "eval_perplexity")[:, columns]
    ts = streams(corpus[1:], batch_size, "eval_perplexity")[:, columns]
    return perplexity_of(_mean_nll(model, xs, ts, time_size))


def eval_perplexity_exact(model: Any, corpus: Array, first_id: int, time_size: int = 500) -> float:
    """exp of the mean negative log-likelihood of every token of ``corpus``, each exactly once.

    One stream from a zero state that is carried to the end, ``first_id`` (``<eos>``) fed before
    the first token, dropout off, the sum in float64. On PTB test that is 82,430 targets.

    Args:
        model: has ``forward(xs, ts)`` and ``reset_state()``; its training state is kept.
        corpus: token ids (length,).
        first_id: the id that stands before the text.
        time_size: steps per window; changes speed and memory, not the result.

    Raises:
        ValueError: for an empty corpus.
    """
    xs, ts = inputs_and_targets(corpus, first_id, "eval_perplexity_exact")
    return perplexity_of(_mean_nll(model, xs, ts, time_size))
