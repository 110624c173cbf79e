"""Surprisal: what every token costs in bits, and what the model expected in its place.

The surprisal of a token is -log2 of the probability that the model gave it, the entropy that of the
whole prediction in the mean, so what the token would cost if the model were right (Shannon 1948).
2 to the mean surprisal of a text is its perplexity: the losses are those that the exact protocol
adds up, by the same kernel in the same windows, bit for bit (up to rounding on a GPU, for a model
whose loss reads scores, and where scores are so large that they have to be shifted).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from common.base_layer import check_sizes
from common.kernels.predictions import describe
from common.np import Array, array_of, np, to_cpu
from common.perplexity.protocols import num_counted, require_language_model, windows
from common.time_layers import TimeOutputWithLoss

__all__ = ["Predictions", "predictions"]

WHO = "predictions"
ROOM = 1 << 22  # scores that are there at a time
FEWEST_ROWS = 8  # of them; fewer are multiplied in another way, which rounds differently


@dataclass(frozen=True)
class Predictions:
    """What a model expected at n places of a text, and what came; all NumPy arrays.

    Args:
        surprisal: -log2 p of the tokens that came, float64 (n,).
        entropy: of the predictions in bits, float64 (n,).
        rank: 1 + the number of tokens with a higher score than the one that came, int64 (n,): 1 is
            the likeliest, and tokens of equal scores share the better place.
        best: ids of the k likeliest tokens, the likeliest first, of equal ones the lower id first;
            int64 (n, k).
        best_bits: -log2 p of each, float64 (n, k).
    """

    surprisal: numpy.ndarray
    entropy: numpy.ndarray
    rank: numpy.ndarray
    best: numpy.ndarray
    best_bits: numpy.ndarray

    def __len__(self) -> int:
        return len(self.surprisal)


def predictions(
    model: Any, xs: Array, ts: Array, *, best: int = 5, window: int = 500
) -> Iterator[Predictions]:
    """What ``model`` expects after each of the ids ``xs``, and how well that fits ``ts``.

    It begins in the state in which the model is and leaves it in the one after ``xs``, so that a
    text can be read piece by piece. Inside ``with evaluation(model):`` it begins from zero, and
    afterwards the training state is back. Memory does not grow with the length of the text.

    Args:
        model: composed as ``models.language_model.LanguageModel``.
        xs: ids that are read, (length,) or (1, length).
        ts: the ids that come next, of that shape; none that the model's loss ignores.
        best: how many of the likeliest tokens are wanted; of fewer there are all.
        window: targets of each of the results; the last may have fewer.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for shapes that do not fit, an id out of range, a target that is ignored, or
            scores that are not finite.
    """
    require_language_model(model, WHO)
    check_sizes(WHO, least=0, best=best)
    check_sizes(WHO, window=window)
    xs, ts = (_one_stream(name, ids) for name, ids in (("xs", xs), ("ts", ts)))
    if xs.shape != ts.shape:
        raise ValueError(f"{WHO}: expected as many targets as ids, got {ts.size} and {xs.size}")
    if ignored := int(ts.size - num_counted(model, ts)):
        raise ValueError(f"{WHO}: expected targets that all count, got {ignored} ignored")
    return (
        _predictions(model, xs[:, columns], ts[:, columns], best, columns.start)
        for columns in windows(ts.size, window)
    )


def _one_stream(name: str, ids: Array) -> Array:
    ids = array_of(ids)
    if ids.ndim == 2 and len(ids) == 1:
        return ids
    if ids.ndim != 1:
        raise ValueError(
            f"{WHO}: expected {name} of shape (length,) or (1, length), got {ids.shape}"
        )
    return ids[None]


def _predictions(model: Any, xs: Array, ts: Array, best: int, first: int) -> Predictions:
    """Those of one window, whose first target is number ``first`` of the text."""
    output: Any = model.loss_layer if isinstance(model.loss_layer, TimeOutputWithLoss) else None
    hs = model.run(getattr(model, "layers_below_loss", model.layers), xs, train_flg=False)
    model.loss_layer.train_flg = False
    V = output.output.num_classes if output else hs.shape[2]
    parts = []
    num_parts = -(-ts.size * V // ROOM)
    for rows in windows(ts.size, max(FEWEST_ROWS, -(-ts.size // num_parts))):
        losses = None
        with numpy.errstate(invalid="ignore"):  # it is looked for below
            if output:
                losses, scores = output.losses_and_scores(hs[:, rows], ts[:, rows])
            else:
                model.loss_layer.expect_ids("ts", ts[:, rows], V)
                scores = hs[0, rows]
            parts.append(_described(scores, ts[0, rows], losses, min(best, V)))
    columns = [numpy.concatenate(column) for column in zip(*parts, strict=True)]
    found = Predictions(*columns)
    wrong = ~(numpy.isfinite(found.entropy) & numpy.isfinite(found.surprisal))
    if wrong.any():
        raise ValueError(
            f"{WHO}: expected finite scores, got others for target {first + wrong.argmax()}; "
            "a weight or a state of the model is not finite"
        )
    return found


def _described(scores: Array, ts: Array, losses: Array | None, k: int) -> tuple[numpy.ndarray, ...]:
    """The arrays of ``Predictions`` of scores (n, V) and targets (n,); the losses if not given."""
    log_sums, entropy, rank, best = describe(scores, ts, k)
    rows = np.arange(len(scores))
    if losses is None:
        losses = log_sums - scores[rows, np.asarray(ts)]
    best_losses = log_sums[:, None] - scores[rows[:, None], best]
    losses, entropy, best_losses = map(_bits, (losses, entropy, best_losses))
    return losses, entropy, to_cpu(rank), to_cpu(best), best_losses


def _bits(nats: Array) -> numpy.ndarray:
    """From nats to bits, on the CPU; of what is certain rounding may have left -1e-7 or -0."""
    return abs(numpy.maximum(to_cpu(nats).astype("float64"), 0)) / math.log(2)
