"""How far back a language model looks: by the gradient of its loss, and by changing what it read.

A target t is predicted from the steps before it: x(t) is the vector of the last word that was read,
x(t-k) that of the word k steps further back. Two questions are asked of many targets of a text:

- How strongly would the loss answer to a small change k steps back? ||d loss(t) / d x(t-k)||, by
  the layers' own backward passes.
- How much does the loss grow when all but the last k words are others? Khandelwal, He, Qi and
  Jurafsky (2018), "Sharp Nearby, Fuzzy Far Away: How Neural Language Models Use Context", who call
  the k from which on perplexity is within 1 % of that with all words the effective context size.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy

from common.base_layer import check_sizes
from common.functions import log_softmax
from common.np import Array, array_of, np, to_cpu
from common.perplexity.gradients import Gradients
from common.perplexity.protocols import (
    evaluation,
    num_counted,
    require_language_model,
    windows,
)
from common.plotting import progress

__all__ = [
    "ONE_PERCENT",
    "Perturbation",
    "first_below",
    "gradient_norms",
    "loss_increases",
    "sample_texts",
]

Perturbation = Literal["replace", "shuffle", "drop"]

ONE_PERCENT = math.log(1.01)  # what a loss grows by where perplexity grows by 1 %
STREAMS = 20  # texts that are read side by side
WINDOW = 100  # steps of an evaluation that are read at once


def sample_texts(
    tokens: Array, length: int, num_targets: int, rng: numpy.random.Generator
) -> numpy.ndarray:
    """Pieces of a text, each of ``length`` words and the target that follows them.

    Args:
        tokens: ids of the text (tokens,).
        length: words before each target.
        num_targets: how many are drawn, each at most once; all targets where there are fewer.
        rng: draws them.

    Returns:
        Ids (targets, length + 1), in the order of the text.

    Raises:
        ValueError: for a text without such a target, or a count below 1.
    """
    check_sizes("sample_texts", length=length, num_targets=num_targets)
    tokens = to_cpu(array_of(tokens))
    available = len(tokens) - length
    if tokens.ndim != 1 or available < 1:
        raise ValueError(
            f"sample_texts: expected at least {length + 1} tokens, one after {length} others, "
            f"got {tokens.shape}"
        )
    starts = numpy.sort(rng.choice(available, min(num_targets, available), replace=False))
    return tokens[starts[:, None] + numpy.arange(length + 1)]


def gradient_norms(model: Any, texts: Array, reach: int) -> numpy.ndarray:
    """||d loss(t) / d x(t-k)|| for k = 0 .. ``reach`` - 1, without dropout and penalties.

    The model reads the words further back first, from a zero state; the gradient goes through all
    of the last ``reach`` steps.

    Args:
        model: composed as ``models.language_model.LanguageModel``. Its weights and its training
            state are as before when this returns, its gradients are not.
        texts: ids (targets, length + 1), the last of each the target; see ``sample_texts``.
        reach: K, at most the length.

    Returns:
        float64 (targets, K) on the CPU; the loss is in nats.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for a reach or an id out of range, or a target that the model's loss ignores.
    """
    who = "gradient_norms"
    gradients = Gradients(model, who)
    xs, ts = _words_and_targets(model, texts, who)
    _check_steps(who, "reach", reach, xs.shape[1])
    norms = numpy.empty((len(ts), reach))
    with (
        gradients.prepared(),
        progress(total=len(ts), unit=" targets", desc="gradients") as bar,
    ):
        for rows in windows(len(ts), STREAMS):
            model.reset_state()
            _read(model, xs[rows, :-reach])
            dxs = gradients.of_last_loss(xs[rows, -reach:], ts[rows])
            squares = (dxs.astype("float64") ** 2).sum(axis=2)
            norms[rows] = to_cpu(np.sqrt(squares))[:, ::-1]
            bar.update(len(dxs))
    return norms


def loss_increases(
    model: Any,
    texts: Array,
    kept: list[int],
    perturbation: Perturbation,
    words: Array,
    rng: numpy.random.Generator,
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What the loss of each target grows by when all but the last k words before it are others.

    The changes are the same for every k as far as they can be, so that what is compared differs in
    k alone. Every text is read from a zero state.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its training state is kept.
        texts: ids (targets, length + 1), the last of each the target; see ``sample_texts``.
        kept: numbers k, at least 1 and at most the length.
        perturbation: what becomes of the words further back. They are "replace"d by words drawn
            from ``words``, "shuffle"d among themselves, or "drop"ped.
        words: ids of a text (tokens,), from which those of "replace" are drawn.
        rng: draws them, or the order.

    Returns:
        The loss of each target as the text is, float64 (targets,), and what it grows by, float64
        (targets, numbers k); both on the CPU and in nats.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for a k or an id out of range, or a target that the model's loss ignores.
    """
    who = "loss_increases"
    require_language_model(model, who)
    xs, ts = _words_and_targets(model, texts, who)
    length = xs.shape[1]
    for k in kept:
        _check_steps(who, "kept", k, length)
    others = rng.choice(to_cpu(array_of(words)), xs.shape) if perturbation == "replace" else xs
    order = numpy.asarray(rng.random(xs.shape))
    losses, increases = numpy.empty(len(ts)), numpy.empty((len(ts), len(kept)))
    with (
        evaluation(model),
        progress(total=len(ts), unit=" targets", desc="changed words") as bar,
    ):
        for rows in windows(len(ts), STREAMS):
            model.reset_state()
            losses[rows] = _last_losses(model, xs[rows], ts[rows])
            model.reset_state()
            done = 0  # of the words that are replaced: the state goes on to a smaller k
            for column in numpy.argsort(kept)[::-1]:
                far = length - kept[column]
                if perturbation == "replace":
                    _read(model, others[rows, done:far])
                    done = far
                else:
                    model.reset_state()
                if perturbation == "shuffle":
                    shuffled = order[rows, :far].argsort(axis=1)
                    _read(model, numpy.take_along_axis(xs[rows, :far], shuffled, axis=1))
                state = model.get_state()
                changed = _last_losses(model, xs[rows, far:], ts[rows])
                increases[rows, column] = changed - losses[rows]
                model.set_state(state)
            bar.update(len(xs[rows]))
    return losses, increases


def first_below(values: numpy.ndarray, limit: float) -> int | None:
    """The first place from which on all ``values`` are below ``limit``; None where the last is not.

    With the mean increases of a loss over k and ``ONE_PERCENT`` it is the place of the effective
    context size.
    """
    above = numpy.flatnonzero(~(numpy.asarray(values) < limit))
    place = int(above[-1]) + 1 if len(above) else 0
    return place if place < len(values) else None


def _check_steps(who: str, name: str, steps: int, length: int) -> None:
    if not 1 <= steps <= length:
        raise ValueError(
            f"{who}: expected {name} in 1..{length}, the words before each target; got {steps}"
        )


def _words_and_targets(model: Any, texts: Array, who: str) -> tuple[Array, Array]:
    """The words (targets, length) and the targets (targets,), all of which count."""
    texts = to_cpu(array_of(texts))
    if texts.ndim != 2 or texts.shape[1] < 2 or not len(texts):
        raise ValueError(f"{who}: expected texts of shape (targets, length + 1), got {texts.shape}")
    xs, ts = texts[:, :-1], texts[:, -1]
    if ignored := int(ts.size - num_counted(model, ts[:, None])):
        raise ValueError(f"{who}: expected targets that all count, got {ignored} ignored")
    return xs, ts


def _read(model: Any, xs: Array) -> Array | None:
    """Let the model read ids (N, steps); the output of the layers below the scores for the last.

    None where there is nothing to read.
    """
    hs = None
    for window in windows(xs.shape[1], WINDOW):
        hs = model.run(model.layers[:-1], xs[:, window], train_flg=False)[:, -1:]
    return hs


def _last_losses(model: Any, xs: Array, ts: Array) -> numpy.ndarray:
    """-log p of the targets (N,), each after its words (N, steps)."""
    scores = model.run(model.layers[-1:], _read(model, xs), train_flg=False)[:, 0]
    log_p = log_softmax(scores.astype("float64"))
    model.layers[-1].expect_ids("targets", ts, log_p.shape[1])
    return to_cpu(-log_p[np.arange(len(ts)), np.asarray(ts)])
