"""The exact protocol of perplexity, for measures that look at the text in their own way.

One stream from a zero state, ``<eos>`` fed first, every target once, the sum in float64: what
``common.util.eval_perplexity_exact`` does with a model as it is, dynamic evaluation and the neural
cache do with a model that remembers what it has read.
"""

from __future__ import annotations

import math
from typing import Any

from common.batches import streams
from common.np import Array, np

__all__ = ["inputs_and_targets", "perplexity_of", "require_language_model"]


def inputs_and_targets(corpus: Array, first_id: int, who: str) -> tuple[Array, Array]:
    """Inputs and targets, both (1, length): every token is a target, ``first_id`` stands before.

    Raises:
        ValueError: for an empty corpus.
    """
    ts = streams(corpus, 1, who)
    xs = np.concatenate([np.full((1, 1), first_id, dtype=ts.dtype), ts[:, :-1]], axis=1)
    return xs, ts


def perplexity_of(mean_nll: float) -> float:
    """exp of a mean negative log-likelihood; infinite where float64 ends, NaN of NaN."""
    return math.inf if mean_nll >= 709 else math.exp(mean_nll)


def require_language_model(model: Any, who: str) -> None:
    """Refuse a model whose layers cannot be reached one by one.

    Raises:
        TypeError: for a model that is not composed as ``models.language_model.LanguageModel``.
    """
    if not all(hasattr(model, name) for name in ("layers", "loss_layer", "run")):
        raise TypeError(
            f"{who}: expected a model with layers and loss_layer, such as models.LanguageModel, "
            f"got {type(model).__name__}"
        )
