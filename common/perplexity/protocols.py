"""Perplexity: exp of the mean negative log-likelihood, by the exact and by the book's protocol.

The exact protocol reads one stream from a zero state that is carried to the end, feeds ``<eos>``
before the first token, asks for every target once with dropout off, and adds up in float64. On PTB
test that is 82,430 targets. Tokens that the model's loss ignores are read but not asked for.

The book's reads the text in whole windows only, each stream starts from a zero state somewhere in
it, and a few hundred targets are never asked for. It is there for comparison; the exact one is the
measure to publish.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from common.base_layer import check_sizes
from common.np import Array, Scalar, array_of, as_float64, ids_on_device
from common.plotting import progress

__all__ = [
    "eval_perplexity",
    "eval_perplexity_exact",
    "evaluation",
    "inputs_and_targets",
    "num_counted",
    "perplexity_of",
    "require_counted",
    "require_language_model",
    "streams",
    "sum_of_loss",
    "windows",
]


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


def windows(length: int, time_size: int) -> Iterator[slice]:
    """Slices of ``time_size`` columns that cover 0 .. ``length`` once; the last may be shorter.

    Raises:
        ValueError: for a ``time_size`` below 1.
    """
    check_sizes("windows", time_size=time_size)
    return (slice(at, min(at + time_size, length)) for at in range(0, length, time_size))


def streams(tokens: Array, batch_size: int, who: str = "streams") -> Array:
    """View (N, length) of ``tokens``; the remainder of the division by N is left out.

    The tokens stay where they are: a layer checks the ids of a window, then takes them to a device.

    Raises:
        ValueError: where a stream would be empty, or ``tokens`` is not one-dimensional.
    """
    tokens = array_of(tokens)
    if tokens.ndim != 1:
        raise ValueError(f"{who}: expected a corpus of shape (length,), got {tokens.shape}")
    check_sizes(who, batch_size=batch_size)
    length = len(tokens) // batch_size
    if length == 0:
        raise ValueError(
            f"{who}: a corpus of {len(tokens)} tokens is too short for a batch of {batch_size}"
        )
    return tokens[: batch_size * length].reshape(batch_size, length)


def inputs_and_targets(corpus: Array, first_id: int, who: str) -> tuple[Array, Array]:
    """Inputs and targets, both (1, length): every token is a target, ``first_id`` stands before.

    Raises:
        ValueError: for an empty corpus, or one that is not one-dimensional.
    """
    ts = streams(corpus, 1, who)
    xs = ts.copy()
    xs[:, 1:], xs[:, 0] = ts[:, :-1], first_id
    return xs, ts


def num_counted(model: Any, ts: Array) -> Scalar:
    """How many of the targets count: all but those that the model's loss ignores.

    A model whose ``ts`` holds more than targets says which they are by ``targets_of(ts)``.
    """
    ts = model.targets_of(ts) if hasattr(model, "targets_of") else ts
    label = getattr(getattr(model, "loss_layer", None), "ignore_label", None)
    ids = ts.argmax(axis=2) if ts.ndim == 3 and label is not None else ts  # of one-hot rows
    return ts.size if label is None else (ids != label).sum()


def require_counted(model: Any, ts: Array, who: str) -> int:
    """How many of the targets count.

    Raises:
        ValueError: for none.
    """
    if number := int(num_counted(model, ts)):
        return number
    raise ValueError(f"{who}: expected a target that counts, got {ts.size} that are ignored")


def sum_of_loss(model: Any, loss: Scalar, num_targets: Scalar) -> Scalar:
    """The loss added up over ``num_targets``, from what the model's ``forward`` returned."""
    return loss if getattr(model, "sums_loss", False) else loss * num_targets


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


def _mean_nll(model: Any, xs: Array, ts: Array, time_size: int, who: str) -> float:
    """Mean negative log-likelihood of the targets that count; xs and ts (N, length), no dropout."""
    given = signature(model.forward).parameters.values()
    is_told = any(p.name == "train_flg" or p.kind == p.VAR_KEYWORD for p in given)
    options = {"train_flg": False} if is_told else {}
    total, num_targets = 0.0, require_counted(model, ts, who)
    on_device = ids_on_device(model, xs, ts)
    with evaluation(model), progress(total=xs.size, unit=" tokens", desc="perplexity") as bar:
        for window in windows(xs.shape[1], time_size):
            loss = model.forward(*(ids[:, window] for ids in on_device), **options)
            total = total + as_float64(sum_of_loss(model, loss, num_counted(model, ts[:, window])))
            bar.update(len(xs) * (window.stop - window.start))
    return float(total) / num_targets


def eval_perplexity(model: Any, corpus: Array, batch_size: int = 10, time_size: int = 35) -> float:
    """Perplexity by the book's protocol: ``batch_size`` streams, the incomplete end dropped.

    Args:
        model: has ``forward(xs, ts)`` and ``reset_state()``; its training state is kept. Where
            ``forward`` has ``train_flg`` or ``**kwargs``, it is given ``train_flg=False``.
        corpus: token ids (length,).
        batch_size: number of streams N.
        time_size: steps per window T.

    Raises:
        ValueError: where the corpus has fewer than N T + 1 tokens, or all of them are ignored.
    """
    corpus = array_of(corpus)
    num_windows = (len(corpus) - 1) // (batch_size * time_size) if batch_size * time_size else 0
    if num_windows < 1:
        raise ValueError(
            f"eval_perplexity: expected at least {batch_size * time_size + 1} tokens "
            f"(batch {batch_size} times {time_size} steps, and one), got {len(corpus)}"
        )
    columns = slice(0, num_windows * time_size)
    xs, ts = (streams(ids, batch_size)[:, columns] for ids in (corpus[:-1], corpus[1:]))
    return perplexity_of(_mean_nll(model, xs, ts, time_size, "eval_perplexity"))


def eval_perplexity_exact(model: Any, corpus: Array, first_id: int, time_size: int = 500) -> float:
    """exp of the mean negative log-likelihood of every token of ``corpus``, each exactly once.

    Args:
        model: as for ``eval_perplexity``.
        corpus: token ids (length,).
        first_id: the id that stands before the text.
        time_size: steps per window; changes speed and memory, not the result.

    Raises:
        ValueError: for an empty corpus, or one of which every token is ignored.
    """
    xs, ts = inputs_and_targets(corpus, first_id, "eval_perplexity_exact")
    return perplexity_of(_mean_nll(model, xs, ts, time_size, "eval_perplexity_exact"))
