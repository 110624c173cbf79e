"""The training loop: forward, backward, clip, update; again, and say how it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy

from common.batches import streams, windows
from common.np import Array, np
from common.optimizer import Optimizer
from common.plotting import perplexity_curve, show_or_save
from common.tying import UniqueParameters
from common.util import clip_grads

__all__ = ["RnnlmTrainer", "Trainer", "np"]

Record = dict[str, float]
Batch = tuple[Array, Array]


class _Progress:
    """Adds up losses between two reports; the loss stays where it is until it is read."""

    def __init__(self) -> None:
        self.total: Array = 0.0
        self.targets = self.iterations = 0
        self.since = time.perf_counter()

    def add(self, loss: Array, targets: int) -> None:
        self.total = self.total + loss * targets
        self.targets += targets
        self.iterations += 1

    def record(self) -> Record:
        loss = float(self.total) / self.targets  # waits for the device
        seconds = time.perf_counter() - self.since
        record = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)),  # exp(710) is past float64
            "ms_per_iteration": 1000 * seconds / self.iterations,
            "tokens_per_second": self.targets / seconds,
        }
        self.__init__()  # type: ignore[misc]
        return record


class Trainer:
    """Trains on plain (x, t) data in shuffled batches; repeated ``fit`` calls continue.

    Args:
        model: has ``forward(x, t)``, ``backward()``, ``params`` and ``grads``.
        optimizer: has ``update(params, grads)`` and ``lr``.
        on_record: called with each record instead of printing it.
        rng: decides the order of the examples.

    Attributes:
        epoch: epochs finished.
        iteration: updates done, over all epochs.
        curve: one record for every report so far.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        on_record: Callable[[Record], None] | None = None,
        rng: numpy.random.Generator | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.on_record = on_record if on_record is not None else print_record
        self.rng = rng if rng is not None else numpy.random.default_rng()
        self.epoch = 0
        self.iteration = 0
        self.curve: list[Record] = []

    def fit(
        self,
        x: Array,
        t: Array,
        max_epoch: int = 10,
        batch_size: int = 32,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train for ``max_epoch`` epochs more.

        Args:
            x: examples (number, ...).
            t: their targets (number, ...).
            max_epoch: how many times each example is seen.
            batch_size: examples per update; the last batch of an epoch may be smaller.
            max_grad: bound of the gradients' global norm; None for no clipping.
            eval_interval: iterations between reports; None for one at the end of each epoch.

        Raises:
            ValueError: where there is no example, or not one target for each.
            RuntimeError: when the loss is no longer finite.
        """
        x, t = np.asarray(x), np.asarray(t)
        if len(x) != len(t) or len(x) == 0:
            raise ValueError(
                f"{type(self).__name__}: expected one target per example, got {len(x)} examples "
                f"and {len(t)} targets"
            )
        check_counts(type(self).__name__, batch_size=batch_size, eval_interval=eval_interval)
        parameters = UniqueParameters(self.model.params, self.model.grads)
        for _ in range(max_epoch):
            order = self.rng.permutation(len(x))
            chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
            batches = ((x[chunk], t[chunk]) for chunk in chunks)
            self._run(batches, 0, len(chunks), parameters, max_grad, eval_interval)
            self.epoch += 1

    def _run(
        self,
        batches: Iterator[Batch],
        done: int,
        iterations: int,
        parameters: UniqueParameters,
        max_grad: float | None,
        eval_interval: int | None,
    ) -> None:
        """The rest of one epoch, of which ``done`` of all ``iterations`` are behind us."""
        interval = iterations if eval_interval is None else eval_interval
        progress = _Progress()
        for number, (x, t) in enumerate(batches, start=done + 1):
            loss = self.model.forward(x, t)
            self.model.backward()
            parameters.add_tied()
            if max_grad is not None:
                clip_grads(parameters.grads, max_grad)
            self.optimizer.update(parameters.params, parameters.grads)
            self.iteration += 1
            self._advance(x)
            progress.add(loss, t.size)
            if number % interval == 0 or number == iterations or self.iteration == 1:
                self._report(progress.record(), number, iterations)

    def _advance(self, x: Array) -> None:
        """Remember that ``x`` has been trained on."""

    def _report(self, record: Record, number: int, iterations: int) -> None:
        place = {
            "epoch": self.epoch + 1,
            "iteration": number,
            "iterations": iterations,
            "step": self.iteration,
            "lr": self.optimizer.lr,
        }
        self.curve.append({**place, **record})
        self.on_record(self.curve[-1])
        if not math.isfinite(record["loss"]):
            raise RuntimeError(
                f"{type(self).__name__}: the loss is {record['loss']} at iteration {number} of "
                f"epoch {self.epoch + 1}; try a smaller learning rate or a smaller max_grad"
            )

    def plot(
        self,
        ylim: Sequence[float] | None = None,
        path: str | None = None,
        valid: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Draw perplexity against iterations, from the first ``fit`` on.

        Args:
            ylim: lowest and highest perplexity drawn; a log scale over everything if None.
            path: where to save the picture; None shows it, or saves curve.png without a screen.
            valid: (iteration, perplexity) points to draw beside the training curve.
        """
        perplexity_curve([(r["step"], r["perplexity"]) for r in self.curve], valid, ylim)
        show_or_save(path)


class RnnlmTrainer(Trainer):
    """Trains a recurrent language model by truncated backpropagation through time.

    The corpus is read as parallel streams (``common.batches``); each epoch starts at their
    beginning with a zero state. ``fit`` again and it continues, also in mid-epoch after an
    interruption: epoch, curve, and ``column``, where the next window begins in the streams.
    """

    column = 0

    def fit(  # type: ignore[override]
        self,
        xs: Array,
        ts: Array,
        max_epoch: int = 10,
        batch_size: int = 20,
        time_size: int = 35,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> None:
        """Train for ``max_epoch`` epochs more.

        Args:
            xs: token ids (length,), usually ``corpus[:-1]``.
            ts: the id that follows each, usually ``corpus[1:]``.
            max_epoch: how many times the corpus is read.
            batch_size: number of parallel streams N.
            time_size: steps per window T.
            max_grad: bound of the gradients' global norm; None for no clipping.
            eval_interval: iterations between reports; None for one at the end of each epoch.

        Raises:
            ValueError: where xs and ts differ in length or are shorter than one batch of N T.
            RuntimeError: when the loss is no longer finite.
        """
        if len(xs) != len(ts):
            raise ValueError(f"RnnlmTrainer: got {len(xs)} tokens but {len(ts)} targets")
        check_counts(
            type(self).__name__,
            batch_size=batch_size,
            time_size=time_size,
            eval_interval=eval_interval,
        )
        if len(xs) < batch_size * time_size:
            raise ValueError(
                f"RnnlmTrainer: expected at least one batch, {batch_size} streams of {time_size} "
                f"steps = {batch_size * time_size} tokens; got {len(xs)}"
            )
        xs = streams(xs, batch_size, "RnnlmTrainer")
        ts = streams(ts, batch_size, "RnnlmTrainer")
        length = xs.shape[1]
        parameters = UniqueParameters(self.model.params, self.model.grads)
        for _ in range(max_epoch):
            if self.column >= length:  # a shorter corpus than the one before
                self.column = 0
            if self.column == 0:
                self.model.reset_state()
            parts = windows(length, time_size, self.column)
            batches = ((xs[:, part], ts[:, part]) for part in parts)
            done = -(-self.column // time_size)
            iterations = done + len(range(self.column, length, time_size))
            self._run(batches, done, iterations, parameters, max_grad, eval_interval)
            self.epoch += 1
            self.column = 0

    def _advance(self, x: Array) -> None:
        self.column += x.shape[1]


def check_counts(who: str, **counts: int | None) -> None:
    """Raise ValueError for a count below 1; None is no count."""
    for name, count in counts.items():
        if count is not None and count < 1:
            spoken = name if name == "eval_interval" else name.replace("_", " ")
            raise ValueError(f"{who}: expected a {spoken} of 1 or more, got {count}")


def print_record(record: Record) -> None:
    """Print one status line."""
    print(
        f"| epoch {record['epoch']:.0f} "
        f"| iteration {record['iteration']:.0f} / {record['iterations']:.0f} "
        f"| lr {record['lr']:.4g} "
        f"| {record['ms_per_iteration']:.1f} ms/it "
        f"| {record['tokens_per_second']:,.0f} tokens/s "
        f"| perplexity {record['perplexity']:.2f}",
        flush=True,
    )
