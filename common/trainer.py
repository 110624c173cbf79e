"""The training loop: forward, backward, clip, update; again, and say how it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy

from common.averaging import WeightAverage
from common.batches import random_windows, streams
from common.divergence import (
    DivergenceError,
    all_finite,
    first_not_finite,
    not_finite,
)
from common.model_state import (
    generator_state,
    load_model_state,
    model_state,
    set_generator,
)
from common.np import Array, np
from common.optimizer import Optimizer
from common.plotting import perplexity_curve, show_or_save
from common.progress import Progress, Record, print_record
from common.tying import UniqueParameters
from common.util import clip_grads
from common.vectors import norm

__all__ = ["Record", "RnnlmTrainer", "Trainer", "np", "print_record"]

Batch = tuple[Array, Array, float]  # examples, targets, share of the learning rate

HOPELESS = 20  # updates skipped in a row: from here on, once they are an epoch's, it is given up


class Trainer:
    """Trains on plain (x, t) data in shuffled batches; repeated ``fit`` calls continue.

    A loss or a norm of the gradients that is not finite is noticed before it reaches the weights;
    on a GPU, where looking means waiting, only when a loss is reported or a checkpoint is made,
    except with ``on_nan="skip"``.

    Args:
        model: has ``forward(x, t)``, ``backward()``, ``params`` and ``grads``.
        optimizer: has ``update(params, grads)`` and ``lr``.
        on_record: called with each record instead of printing it.
        rng: decides the order of the examples.
        on_iteration: called with the trainer after each iteration, when ``state_dict`` may be
            kept; what it raises ends ``fit``, and the next ``fit`` goes on from there.
        on_nan: "stop" raises DivergenceError; "skip" leaves out such updates and counts them, and
            raises where a weight is not finite or nothing was learned for a whole epoch.

    Attributes:
        schedule: learning rate as a function of epochs done, such as ``common.schedules.Cosine``;
            None leaves the optimizer's ``lr`` to others.
        average: a ``common.averaging.WeightAverage`` to keep up to date, or None.
        epoch: epochs finished.
        column: how much of the epoch in progress has been trained on, in examples.
        iteration: windows or batches read, over all epochs.
        skipped: how many of them did not change the weights.
        curve: one record for every report so far.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        on_record: Callable[[Record], None] | None = None,
        rng: numpy.random.Generator | None = None,
        *,
        on_iteration: Callable[[Any], None] | None = None,
        on_nan: Literal["stop", "skip"] = "stop",
    ) -> None:
        if on_nan not in ("stop", "skip"):
            raise ValueError(f"{type(self).__name__}: expected on_nan stop or skip, got {on_nan!r}")
        self.model, self.optimizer = model, optimizer
        self.on_record = on_record if on_record is not None else print_record
        self.rng = rng if rng is not None else numpy.random.default_rng()
        self.on_iteration, self.on_nan = on_iteration, on_nan
        self.schedule: Callable[[float], float] | None = None
        self.average: WeightAverage | None = None
        self.epoch = self.column = self.iteration = self.skipped = self._skipped_in_a_row = 0
        self._in_epoch = 0  # iterations in the epoch in progress
        self.curve: list[Record] = []
        self._progress = Progress()
        self._order: numpy.ndarray = numpy.arange(0)

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
            DivergenceError: when the loss or the norm of the gradients is no longer finite.
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
            if self.column == 0 or len(self._order) != len(x):
                self.column = 0
                self._order = self.rng.permutation(len(x))
            rest = self._order[self.column :]
            chunks = (rest[i : i + batch_size] for i in range(0, len(rest), batch_size))
            batches = ((x[chunk], t[chunk], 1.0) for chunk in chunks)
            self._run(batches, len(x), batch_size, parameters, max_grad, eval_interval)

    def _run(
        self,
        batches: Iterator[Batch],
        columns: int,
        usual_size: int,
        parameters: UniqueParameters,
        max_grad: float | None,
        eval_interval: int | None,
    ) -> None:
        """The rest of one epoch of so many ``columns``; ``usual_size`` of them are a batch."""
        if self.column == 0:
            self._in_epoch = 0
        self._progress.go_on()
        for x, t, share in batches:
            number = self._in_epoch + 1
            with (
                numpy.errstate(over="ignore", invalid="ignore"),  # what comes of it is looked at
                self._learning_rate(self.epoch + self.column / columns, share),
            ):
                loss = self._learn(x, t, parameters, max_grad, number)
            self.iteration += 1
            self._in_epoch = number
            self.column += self._size(x)
            is_last = self.column >= columns
            iterations = number - (self.column - columns) // usual_size  # about, of random sizes
            if loss is not None:
                self._progress.add(loss, t.size)
                self._skipped_in_a_row = 0
            else:
                self.skipped += 1
                self._skipped_in_a_row += 1
                if self._skipped_in_a_row >= max(iterations, HOPELESS):
                    trouble = f"{self._skipped_in_a_row} updates in a row were not finite"
                    self._stop(trouble, number, parameters)
            due = eval_interval is not None and number % eval_interval == 0
            if (due or is_last or self.iteration == 1) and self._progress.iterations:
                self._report(number, iterations, parameters)
            if is_last:
                self.epoch += 1
                self.column = 0
            if self.on_iteration is not None:
                self._progress.pause()
                self.on_iteration(self)
                self._progress.go_on()

    @contextmanager
    def _learning_rate(self, epochs_done: float, share: float) -> Iterator[None]:
        """Inside, the optimizer's rate is that of the schedule, times ``share``."""
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(epochs_done)
        rate = self.optimizer.lr
        self.optimizer.lr = rate * share
        try:
            yield
        finally:
            self.optimizer.lr = rate

    def _learn(
        self,
        x: Array,
        t: Array,
        parameters: UniqueParameters,
        max_grad: float | None,
        number: int,
    ) -> Array | None:
        """One update; the loss before it, without penalties, or None where it was left out."""
        loss = self.model.forward(x, t)
        penalty = getattr(self.model, "penalty", 0.0)
        self.model.backward()
        parameters.add_tied()
        grads = parameters.grads
        looks = self.on_nan == "skip" or isinstance(grads[0], numpy.ndarray)
        before = clip_grads(grads, max_grad) if max_grad is not None else None
        if looks:
            trouble = not_finite(loss, norm(grads) if before is None else before)
            if trouble is not None:
                self._refuse(trouble, number, parameters)
                return None
        self.optimizer.update(parameters.params, grads)
        if self.average is not None:
            self.average.update()
        return loss - penalty

    def _refuse(self, trouble: str, number: int, parameters: UniqueParameters) -> None:
        """Stop, or get ready to go on without this update."""
        if self.on_nan == "stop" or not all_finite(parameters.params):
            self._stop(trouble, number, parameters)
        state = self.model.get_state() if hasattr(self.model, "get_state") else []
        if not all_finite(array for arrays in state if arrays is not None for array in arrays):
            self.model.reset_state()

    def _stop(self, trouble: str, number: int, parameters: UniqueParameters) -> None:
        with numpy.errstate(over="ignore", invalid="ignore"):
            self.model.backward()  # clipping by a norm that is not finite has spoilt the gradients
            parameters.add_tied()
        raise DivergenceError(
            f"{type(self).__name__}: {trouble} at iteration {number} of epoch {self.epoch + 1}, "
            f"{first_not_finite(self.model, parameters)}; try a smaller learning rate or a "
            "smaller max_grad"
        )

    def _size(self, x: Array) -> int:
        """How many columns of the epoch ``x`` is."""
        return len(x)

    def _report(self, number: int, iterations: int, parameters: UniqueParameters) -> None:
        place = {
            "epoch": self.epoch + 1,
            "iteration": number,
            "iterations": iterations,
            "step": self.iteration,
            "lr": self.optimizer.lr,
        }
        if self.on_nan == "skip":
            place["skipped"] = self.skipped
        record = self._progress.record()
        self.curve.append({**place, **record})
        self.on_record(self.curve[-1])
        if not numpy.isfinite(record["loss"]):
            self._stop(f"the loss is {record['loss']}", number, parameters)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, and what was reported so far.

        Arrays are copies; ``common.checkpoint`` puts them into a file. Ask between two calls of
        ``fit``, or in ``on_iteration``.

        Raises:
            DivergenceError: where a weight, or a loss since the last report, is not finite.
            TypeError: for a model that carries a state and cannot give it.
        """
        if not all_finite([*self.model.params, np.asarray(self._progress.total)]):
            parameters = UniqueParameters(self.model.params, self.model.grads)
            raise DivergenceError(
                f"{type(self).__name__}: not kept, after {self.iteration} iterations something is "
                f"not finite, {first_not_finite(self.model, parameters)}; try a smaller learning "
                "rate or a smaller max_grad"
            )
        return {
            "trainer": type(self).__name__,
            "model": model_state(self.model),
            "rule": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict(),
            "rng": generator_state(self.rng),
            "epoch": self.epoch,
            "column": self.column,
            "in_epoch": self._in_epoch,
            "average": None if self.average is None else self.average.state_dict(),
            "iteration": self.iteration,
            "skipped": self.skipped,
            "skipped_in_a_row": self._skipped_in_a_row,
            "order": self._order.copy(),
            "progress": self._progress.state_dict(),
            "curve": [dict(record) for record in self.curve],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned: the same updates follow, bit for bit.

        Model, optimizer and ``average`` must be built as they were then; their state is
        overwritten. ``fit`` then wants the same data, and the rest of the epoch in progress counts
        as one epoch.

        Raises:
            ValueError: for the state of another kind of trainer, optimizer, average or model.
        """
        kinds = [type(self).__name__, type(self.optimizer).__name__]
        if kinds != (saved := [state["trainer"], state["rule"]]):
            raise ValueError(f"{kinds[0]}: expected the state of {kinds}, got {saved}")
        if state["rng"]["bit_generator"] != type(self.rng.bit_generator).__name__:
            raise ValueError(
                f"{kinds[0]}: expected a generator {state['rng']['bit_generator']}, got "
                f"{type(self.rng.bit_generator).__name__}"
            )
        if (self.average is None) != (state.get("average") is None):
            raise ValueError(f"{kinds[0]}: one of the state and the trainer has no average")
        load_model_state(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        set_generator(self.rng, state["rng"])
        self.epoch, self.column = int(state["epoch"]), int(state["column"])
        self._in_epoch = int(state["in_epoch"])
        self.iteration, self.skipped = int(state["iteration"]), int(state["skipped"])
        self._skipped_in_a_row = int(state["skipped_in_a_row"])
        self._order = numpy.array(state["order"])
        self._progress.load_state_dict(state["progress"])
        self.curve = [dict(record) for record in state["curve"]]

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

    def fit(  # type: ignore[override]
        self,
        xs: Array,
        ts: Array,
        max_epoch: int = 10,
        batch_size: int = 20,
        time_size: int = 35,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
        *,
        random_offset: bool = False,
        random_sizes: bool = False,
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
            random_offset: the first window of an epoch has 1 .. T steps.
            random_sizes: windows have random sizes around T (``common.batches.next_window``); the
                learning rate is scaled by each window's share of T.

        Raises:
            ValueError: where xs and ts differ in length or are shorter than one batch of N T.
            DivergenceError: when the loss or the norm of the gradients is no longer finite.
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
            parts = random_windows(
                length,
                time_size,
                self.rng,
                self.column,
                random_offset=random_offset,
                random_sizes=random_sizes,
            )
            batches = (
                (
                    xs[:, part],
                    ts[:, part],
                    (part.stop - part.start) / time_size if random_sizes else 1.0,
                )
                for part in parts
            )
            self._run(batches, length, time_size, parameters, max_grad, eval_interval)

    def _size(self, x: Array) -> int:
        return x.shape[1]


def check_counts(who: str, **counts: int | None) -> None:
    """Raise ValueError for a count below 1; None is no count."""
    for name, count in counts.items():
        if count is not None and count < 1:
            spoken = name if name == "eval_interval" else name.replace("_", " ")
            raise ValueError(f"{who}: expected a {spoken} of 1 or more, got {count}")
