"""The exact protocol, token by token: the negative log-likelihood of each, from one pass."""

from __future__ import annotations

from typing import Any

import numpy

from common.functions import log_softmax
from common.np import Array, np, to_cpu
from common.perplexity.protocols import (
    evaluation,
    inputs_and_targets,
    num_counted,
    require_language_model,
    windows,
)
from common.plotting import progress

__all__ = ["token_losses"]


def token_losses(
    model: Any, corpus: Array, first_id: int, time_size: int = 500
) -> numpy.ndarray[Any, numpy.dtype[Any]]:
    """Negative log-likelihood of every token; exp of the mean is the exact perplexity.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        corpus: token ids (length,), none that the model's loss ignores.
        first_id: the id that stands before the text.
        time_size: steps per window; changes speed and memory, not the result.

    Returns:
        float64 (length,) on the CPU, in nats.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for an empty corpus, an id out of range, or a token that is ignored.
    """
    require_language_model(model, "token_losses")
    xs, ts = inputs_and_targets(corpus, first_id, "token_losses")
    if ignored := ts.size - num_counted(model, ts):
        raise ValueError(f"token_losses: expected tokens that all count, got {ignored} ignored")
    losses = np.empty(ts.size, dtype="float64")
    with (
        evaluation(model),
        progress(total=ts.size, unit=" tokens", desc="tokens") as bar,
    ):
        for window in windows(ts.size, time_size):
            log_p = log_softmax(model.predict(xs[:, window])[0])
            model.layers[-1].expect_ids("targets", ts[0, window], log_p.shape[1])
            targets = np.asarray(ts[0, window])
            losses[window] = -log_p[np.arange(len(targets)), targets]
            bar.update(len(targets))
    return to_cpu(losses)
