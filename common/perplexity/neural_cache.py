"""The neural cache: words that came lately are likely to come again.

Grave, Joulin and Usunier (2017), "Improving neural language models with a continuous cache". Beside
the model's own probability stands one of the last words, each weighted by how much the state that
was followed by it resembles the state now:

    p(w) = (1 - weight) p_model(w) + weight p_cache(w)
    p_cache(w)  proportional to  sum over cached (h_i, w_{i+1} = w) of exp(theta h_t . h_i)

h is what the output layer reads. No weight changes and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from common.base_layer import check_sizes
from common.functions import log_softmax
from common.np import Array, np, to_cpu
from common.perplexity.protocols import (
    evaluation,
    inputs_and_targets,
    perplexity_of,
    require_counted,
    require_language_model,
    windows,
)
from common.plotting import progress

__all__ = ["cache_probabilities", "eval_perplexity_cache", "mixed_perplexity"]

WHO = "eval_perplexity_cache"
MOST = 1e30  # more than any theta that makes a difference, and times a similarity still a float32


def _cached(
    hs: Array, ts: Array, keys: Array, words: Array, cache_size: int, thetas: Sequence[float]
) -> Array:
    """p_cache of the targets ``ts`` (T,) for each theta, (thetas, T).

    ``keys`` (K, H) and ``words`` (K,) are the cache as it was, and after it the window itself: row
    t sees those of its own window that were answered before, in one product with a band for a mask.
    """
    T, K = len(hs), len(keys)
    similar = hs @ keys.T
    age = np.arange(K - T, K)[:, None] - np.arange(K)
    seen = (age >= 1) & (age <= cache_size)
    found = seen & (words == ts[:, None])
    # Shifted by the largest that counts, so that exp never overflows; 0 where nothing is cached.
    largest = np.where(seen, similar, -np.inf).max(axis=1, keepdims=True)
    shifted = np.minimum(similar - np.where(largest > -np.inf, largest, 0), 0)
    p = np.zeros((len(thetas), T), dtype="float64")
    for row, theta in enumerate(thetas):
        weights = np.exp(min(theta, MOST) * shifted)
        total = (weights * seen).sum(axis=1, dtype="float64")
        p[row] = (weights * found).sum(axis=1, dtype="float64") / np.maximum(total, 1e-300)
    return p


def cache_probabilities(
    model: Any,
    corpus: Array,
    first_id: int,
    cache_size: int,
    thetas: Sequence[float],
    time_size: int = 200,
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What the model and the cache say of every token, from one pass for any number of thetas.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        corpus: token ids (length,).
        first_id: the id that stands before the text.
        cache_size: how many of the last words are kept.
        thetas: 0 weighs all cached words alike, more prefers similar states.
        time_size: steps per window; changes speed and memory, not the result.

    Returns:
        log p_model (tokens,) and p_cache (thetas, tokens), float64 on the CPU, of every token but
        those that the model's loss ignores. Before the first token nothing is cached: there
        p_cache is p_model.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for an empty corpus, one of which every token is ignored, an id or a number out
            of range.
    """
    require_language_model(model, WHO)
    check_sizes(WHO, cache_size=cache_size)
    for theta in thetas:
        if not 0 <= theta < numpy.inf:
            raise ValueError(f"{WHO}: expected theta of 0 or more, got {theta}")
    xs, ts = inputs_and_targets(corpus, first_id, WHO)
    require_counted(model, ts, WHO)
    length, label = ts.size, getattr(model.loss_layer, "ignore_label", None)
    counts = numpy.ones(length, bool) if label is None else to_cpu(ts[0] != label)
    log_p = np.empty(length, dtype="float64")
    p_cache = np.empty((len(thetas), length), dtype="float64")
    *below, output = model.layers
    keys, words = None, np.asarray(ts[0, :0])
    with (
        evaluation(model),
        progress(total=length, unit=" tokens", desc="cache") as bar,
    ):
        for window in windows(length, time_size):
            hs = model.run(below, xs[:, window], train_flg=False)
            scores = output.forward(hs)[0]
            output.expect_ids("targets", ts[0, window][counts[window]], scores.shape[1])
            now = np.asarray(ts[0, window])
            log_p[window] = log_softmax(scores)[np.arange(len(now)), now]
            keys = np.array(hs[0]) if keys is None else np.concatenate([keys, hs[0]])
            words = np.concatenate([words, now])
            p_cache[:, window] = _cached(hs[0], now, keys, words, cache_size, thetas)
            keys, words = keys[-cache_size:], words[-cache_size:]
            bar.update(len(now))
    p_cache[:, 0] = np.exp(log_p[0])
    return to_cpu(log_p)[counts], to_cpu(p_cache)[:, counts]


def mixed_perplexity(log_p: numpy.ndarray, p_cache: numpy.ndarray, weight: float) -> float:
    """Perplexity of (1 - weight) p_model + weight p_cache.

    Args:
        log_p: log p_model (tokens,).
        p_cache: (tokens,).
        weight: of the cache, in 0 <= weight < 1.

    Raises:
        ValueError: for a weight out of range.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"{WHO}: expected a weight in [0, 1), got {weight}")
    with numpy.errstate(divide="ignore"):  # a word that is not cached: log 0, and exp of it is 0
        mixed = numpy.logaddexp(numpy.log1p(-weight) + log_p, numpy.log(weight * p_cache))
    return perplexity_of(float(-mixed.mean()))


def eval_perplexity_cache(
    model: Any,
    corpus: Array,
    first_id: int,
    *,
    cache_size: int,
    theta: float,
    weight: float,
    time_size: int = 200,
) -> float:
    """Perplexity by the exact protocol of a model with a cache of the words just read.

    Not to be mixed with that of :func:`common.util.eval_perplexity_exact`, to which it is equal
    for a weight of 0. For several settings, call :func:`cache_probabilities` once and
    :func:`mixed_perplexity` for each.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        corpus: token ids (length,).
        first_id: the id that stands before the text.
        cache_size: how many of the last words are kept.
        theta: 0 weighs all cached words alike, more prefers similar states.
        weight: of the cache in the mixture, in 0 <= weight < 1.
        time_size: steps per window; changes speed and memory, not the result.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for an empty corpus, one of which every token is ignored, an id or a number out
            of range.
    """
    log_p, (p_cache,) = cache_probabilities(model, corpus, first_id, cache_size, [theta], time_size)
    return mixed_perplexity(log_p, p_cache, weight)
