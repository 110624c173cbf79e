"""The exact protocol, token by token: the negative log-likelihood of each, from one pass."""

from __future__ import annotations

from typing import Any

import numpy
from tqdm import tqdm

from common.functions import log_softmax
from common.np import Array, np, to_cpu
from common.perplexity.protocols import (
    evaluation,
    inputs_and_targets,
    require_language_model,
    windows,
)

__all__ = ["token_losses"]


def token_losses(
    model: Any, corpus: Array, first_id: int, time_size: int = 500
) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """Negative log-likelihood of every token; exp of the mean is the exact perplexity.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        corpus: token ids (length,); every one of them counts.
        first_id: the id that stands before the text.
        time_size: steps per window; changes speed and memory, not the result.

    Returns:
        float64 (length,) on the CPU, in nats.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for an empty corpus.
    """
    require_language_model(model, "token_losses")
    xs, ts = map(np.asarray, inputs_and_targets(corpus, first_id, "token_losses"))
    losses = np.empty(ts.size, dtype="float64")
    with (
        evaluation(model),
        tqdm(total=ts.size, unit=" tokens", desc="tokens", leave=False, disable=None) as bar,
    ):
        for window in windows(ts.size, time_size):
            targets = ts[0, window]
            log_p = log_softmax(model.predict(xs[:, window])[0])
            losses[window] = -log_p[np.arange(len(targets)), targets]
            bar.update(len(targets))
    return to_cpu(losses)
