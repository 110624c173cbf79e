"""Dynamic evaluation: the model goes on learning from the text on which it is measured.

Krause, Kahembwe, Murray and Renals (2018), "Dynamic evaluation of neural sequence models". The text
is read in short segments. Each is scored, every target once and from what came before it only;
then the weights take one step along the gradient of that segment's loss:

    w -= lr * g / (R + epsilon)  -  decay * D * (w0 - w),      D = min(R / mean(R), 1 / decay)

R is the root of the mean square of the weight's gradient on training data, w0 the trained weight,
to which w is drawn back: strongly where training moved the weight much. Without R it is plain SGD
with 1 in place of R + epsilon and of D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from common.base_layer import check_sizes
from common.kernels import over_rows
from common.kernels.passes import add_rows, descend
from common.np import Array, np
from common.optimizer import UniqueParameters
from common.perplexity.gradients import Gradients
from common.perplexity.protocols import (
    inputs_and_targets,
    num_counted,
    perplexity_of,
    require_counted,
    streams,
    windows,
)
from common.plotting import progress
from common.row_gradient import RowGradient, dense

__all__ = ["dynamic_losses", "eval_perplexity_dynamic", "gradient_scales"]


def gradient_scales(
    model: Any,
    corpus: Array,
    batch_size: int = 100,
    time_size: int = 5,
    max_windows: int | None = None,
) -> list[Array]:
    """R, the root of the mean square of each parameter's gradient over windows of training data.

    A window of which the model's loss ignores every target has no gradient and is left out.

    Args:
        model: a language model; its weights and its training state are kept.
        corpus: token ids (length,) on which it was trained.
        batch_size: streams N over which one gradient is a mean; 100 in the paper's experiments.
        time_size: steps T of a window, best the segments' size.
        max_windows: read no more windows than this; None reads the whole corpus.

    Returns:
        One array for each parameter, a tied one once, in the model's order.

    Raises:
        ValueError: where the corpus is too short for one column, every token is ignored, or a count
            is below 1.
    """
    who = "gradient_scales"
    check_sizes(who, max_windows=max_windows)
    xs, ts = streams(corpus[:-1], batch_size, who), streams(corpus[1:], batch_size, who)
    gradients = Gradients(model, who)
    require_counted(model, ts, who)
    chosen = [part for part in windows(xs.shape[1], time_size) if num_counted(model, ts[:, part])]
    chosen = chosen[:max_windows]
    sums = [np.zeros_like(param) for param in gradients.parameters.params]
    with gradients.prepared():
        for window in progress(chosen, unit=" windows", desc="gradients"):
            gradients.forward(xs[:, window], ts[:, window])
            gradients.backward()
            for total, grad in zip(sums, gradients.parameters.grads, strict=True):
                if isinstance(grad, RowGradient):
                    add_rows(total, grad.ids, grad.rows * grad.rows)
                    continue

                def add(rows: slice, total: Array = total, grad: Array = grad) -> None:
                    total[rows] += grad[rows] * grad[rows]

                over_rows(add, total)
    return [np.sqrt(total / len(chosen)) for total in sums]


class _Descent:
    """The step of the weights, its constant parts computed once; see the top of the file."""

    def __init__(
        self,
        parameters: UniqueParameters,
        lr: float,
        decay: float,
        scales: Sequence[Array] | None,
        epsilon: float,
    ) -> None:
        params = parameters.params
        if scales is None:
            rates: list[Any] = [lr] * len(params)
            pulls: list[Any] = [decay] * len(params)
        else:
            mean = sum(float(R.sum(dtype="float64")) for R in scales) / sum(R.size for R in scales)
            rates = [lr / (R + epsilon) for R in scales]
            pulls = [np.minimum(decay / mean * R, 1) if mean > 0 else decay for R in scales]
        self.grads = parameters.grads
        self.params = params
        self.read: dict[int, numpy.ndarray] = {}  # of a table with a gradient of rows: which so far
        self.trained = [np.array(param) for param in params]
        self.rates, self.pulls = (
            [
                np.broadcast_to(np.asarray(value, dtype=param.dtype), param.shape)
                for value, param in zip(values, params, strict=True)
            ]
            for values in (rates, pulls)
        )

    def step(self) -> None:
        """Change every parameter in place."""
        for k, (param, grad, *others) in enumerate(
            zip(self.params, self.grads, self.trained, self.rates, self.pulls, strict=True)
        ):
            if isinstance(grad, RowGradient) and isinstance(grad.ids, numpy.ndarray):
                self._descend_by_rows(k, grad, param, *others)
            else:
                descend(param, dense(grad), *others)

    def _descend_by_rows(self, k: int, grad: RowGradient, param: Array, *others: Array) -> None:
        """As ``descend``; rows that no segment has read are as trained, and nothing draws them."""
        ids = self.read[k] = numpy.union1d(self.read.get(k, grad.ids), grad.ids)
        rows = numpy.zeros((len(ids), param.shape[1]), dtype=param.dtype)
        rows[ids.searchsorted(grad.ids)] = grad.rows
        part, *parts = (array[ids] for array in (param, *others))
        descend(part, rows, *parts)
        param[ids] = part

    @contextmanager
    def undone_at_the_end(self) -> Iterator[None]:
        """Afterwards the weights are the trained ones, bit for bit."""
        try:
            yield
        finally:
            for param, trained in zip(self.params, self.trained, strict=True):
                param[...] = trained


def _check(
    who: str, gradients: Gradients, scales: Sequence[Array] | None, **numbers: float
) -> None:
    for name, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{who}: expected {name} of 0 or more, got {value}")
    if numbers["decay"] > 1:
        raise ValueError(f"{who}: expected decay in 0..1, got {numbers['decay']}")
    if scales is None:
        return
    shapes = [param.shape for param in gradients.parameters.params]
    if [R.shape for R in scales] != shapes:
        raise ValueError(
            f"{who}: expected scales of shapes {shapes}, got {[R.shape for R in scales]}"
        )
    if numbers["epsilon"] == 0:
        raise ValueError(f"{who}: expected epsilon above 0, got 0; a scale may be 0")


@numpy.errstate(over="ignore", invalid="ignore")  # the losses tell
def dynamic_losses(
    model: Any,
    corpus: Array,
    first_id: int,
    *,
    lr: float,
    decay: float = 0.0,
    time_size: int = 5,
    scales: Sequence[Array] | None = None,
    epsilon: float = 1e-3,
) -> Array:
    """Sum of the negative log-likelihoods of each segment's targets, float64 (segments,).

    Targets that the model's loss ignores have no share in it. Arguments and errors are those of
    :func:`eval_perplexity_dynamic`.
    """
    who = "eval_perplexity_dynamic"
    xs, ts = inputs_and_targets(corpus, first_id, who)
    gradients = Gradients(model, who)
    _check(who, gradients, scales, lr=lr, decay=decay, epsilon=epsilon)
    descent = _Descent(gradients.parameters, lr, decay, scales, epsilon)
    segments = list(windows(xs.shape[1], time_size))
    losses = np.zeros(len(segments), dtype="float64")
    with (
        gradients.prepared(),
        descent.undone_at_the_end(),
        progress(total=ts.size, unit=" tokens", desc="dynamic") as bar,
    ):
        for k, segment in enumerate(segments):
            loss = gradients.forward(xs[:, segment], ts[:, segment])
            losses[k] = loss * num_counted(model, ts[:, segment])
            gradients.backward()
            descent.step()
            bar.update(segment.stop - segment.start)
    return losses


def eval_perplexity_dynamic(
    model: Any,
    corpus: Array,
    first_id: int,
    *,
    lr: float,
    decay: float = 0.0,
    time_size: int = 5,
    scales: Sequence[Array] | None = None,
    epsilon: float = 1e-3,
) -> float:
    """Perplexity by the exact protocol of a model that learns from each segment after its score.

    The result depends on ``time_size``, and is not to be mixed with that of
    :func:`common.util.eval_perplexity_exact`, to which it is equal for an ``lr`` of 0.

    Args:
        model: composed as ``models.language_model.LanguageModel``; its weights and its training
            state are as before when this returns, its gradients are not.
        corpus: token ids (length,).
        first_id: the id that stands before the text.
        lr: the learning rate; the loss is a mean over the segment.
        decay: in 0..1, how far each step draws the weights back to the trained ones.
        time_size: tokens per segment; the paper has 5 for words and 20 for characters.
        scales: R of each parameter, from :func:`gradient_scales`; None for plain SGD.
        epsilon: added to R; without ``scales`` it means nothing.

    Raises:
        TypeError: for a model that is not composed of layers.
        ValueError: for an empty corpus or one of which every token is ignored, a number out of
            range, or scales of another model.
    """
    who = "eval_perplexity_dynamic"
    num_targets = require_counted(model, streams(corpus, 1, who), who)
    losses = dynamic_losses(
        model,
        corpus,
        first_id,
        lr=lr,
        decay=decay,
        time_size=time_size,
        scales=scales,
        epsilon=epsilon,
    )
    return perplexity_of(float(losses.sum()) / num_targets)
