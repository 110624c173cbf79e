"""The training loop: forward, backward, clip, update; again, and say how it goes.

A corpus is read as N parallel streams, cut into windows of T steps:

    corpus  a b c d e f g h i j k l m n      N = 3, four tokens each; m and n are left out

    stream 0   a b c d                       window 0      window 1      with T = 2
    stream 1   e f g h                         a b           c d
    stream 2   i j k l                         e f           g h
                                               i j           k l

Window k + 1 goes on where window k stopped, stream by stream: that is what lets a recurrent layer
carry its state. A last window that is shorter than T is not dropped.

With fixed windows the gradient stops at the same tokens in every epoch, so their sizes may be
drawn. One is drawn at a time, by the seed and the number of the iteration: with the column where it
begins, that is all a run needs to go on in mid-epoch. A token of a short window would count for
more, since the loss is a mean over the window: the update of a window of S steps is scaled by S / T
(Merity et al. 2018, section 5).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy

from common.averaging import WeightAverage
from common.base_layer import check_sizes, seed_of
from common.divergence import DivergenceError, first_not_finite
from common.files import model_state
from common.kernels.passes import all_finite, norm
from common.np import Array, Scalar, array_of, ids_on_device, np, plus
from common.optimizer import Optimizer, UniqueParameters, clip_grads, remove_duplicate
from common.perplexity.protocols import num_counted, perplexity_of, streams, sum_of_loss
from common.plotting import Status, draw_curve
from common.random_windows import random_size

__all__ = [
    "Progress",
    "Record",
    "RnnlmTrainer",
    "Trainer",
    "clip_grads",
    "next_window",
    "np",
    "remove_duplicate",
]

Record = dict[str, float]
# Examples, targets, how many of these count, columns, share of the learning rate
Batch = tuple[Array, Array, Scalar, int, float]

MAX_SKIPPED = 20  # skipped updates in a row that stop training; a whole epoch if that has more


class Trainer:
    """Trains on plain (x, t) data in shuffled batches; repeated ``fit`` calls continue.

    A loss or a norm of the gradients that is not finite is noticed before it reaches the weights;
    on a GPU, where looking means waiting, only when a loss is reported or a checkpoint is made,
    except with ``on_nan="skip"``. An iteration that is interrupted did not happen: the next ``fit``
    repeats it.

    Args:
        model: has ``forward(x, t)``, ``backward()``, ``params`` and ``grads``.
        optimizer: has ``update(params, grads)`` and ``lr``.
        on_record: called by ``fit`` with each record instead of printing it.
        rng: decides the order of the examples, and gives the seed of whatever else is random.
        on_nan: "stop" raises DivergenceError; "skip" leaves out such updates and counts them, and
            raises where a weight is not finite or nothing was learned for a whole epoch.

    Attributes:
        schedule: learning rate as a function of epochs done, such as
            ``common.schedules.schedule`` returns; None leaves the optimizer's ``lr`` to others.
        average: a ``common.averaging.WeightAverage`` to keep up to date, or None.
        epoch: epochs finished.
        column: how much of the epoch in progress has been trained on, in examples; 0 where an
            epoch has just ended.
        iteration: windows or batches read, over all epochs.
        skipped: how many of them did not change the weights.
        seed: 64 bits that ``rng`` gives without drawing.
        shuffles: whether each epoch has an order of its own, drawn from ``rng``.
        curve: one record for every report so far.

    Raises:
        ValueError: for another ``on_nan``.
    """

    shuffles = True

    def __init__(
        self,
        model: Any,
        optimizer: Optimizer,
        on_record: Callable[[Record], None] | None = None,
        rng: numpy.random.Generator | None = None,
        *,
        on_nan: Literal["stop", "skip"] = "stop",
    ) -> None:
        if on_nan not in ("stop", "skip"):
            raise ValueError(f"{type(self).__name__}: expected on_nan stop or skip, got {on_nan!r}")
        self.model, self.optimizer = model, optimizer
        self.on_record = on_record
        self.rng = rng if rng is not None else numpy.random.default_rng()
        self.seed = seed_of(self.rng)
        self.on_nan = on_nan
        self.schedule: Callable[[float], float] | None = None
        self.average: WeightAverage | None = None
        self.epoch = self.column = self.iteration = self.skipped = self.skipped_in_a_row = 0
        self.in_epoch = 0  # iterations in the epoch in progress
        self.curve: list[Record] = []
        self.progress = Progress()
        self.order: numpy.ndarray = numpy.arange(0)

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
        records = self.iterations(x, t, max_epoch, batch_size, max_grad, eval_interval)
        self._report(records, max_epoch)

    def _report(self, records: Iterator[Record | None], max_epoch: int) -> None:
        on_record = self.on_record or Status(self.epoch + max_epoch, self.iteration).print
        for record in records:
            if record is not None:
                on_record(record)

    def iterations(
        self,
        x: Array,
        t: Array,
        max_epoch: int = 10,
        batch_size: int = 32,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
    ) -> Iterator[Record | None]:
        """As ``fit``, one update at a time: yields the record where one is due, else None.

        Between two iterations ``state_dict`` may be kept and the loop may be left. Errors are those
        of ``fit``.
        """
        x, t = (a if a.dtype.kind in "iu" else np.asarray(a) for a in map(array_of, (x, t)))
        if len(x) != len(t) or len(x) == 0:
            raise ValueError(
                f"{type(self).__name__}: expected one target per example, got {len(x)} examples "
                f"and {len(t)} targets"
            )
        check_sizes(type(self).__name__, batch_size=batch_size, eval_interval=eval_interval)
        for _ in range(max_epoch):
            if len(self.order) != len(x):
                with _interrupts_wait():
                    self.column, self.order = 0, self.rng.permutation(len(x))
            rest = self.order[self.column :]
            chunks = (rest[i : i + batch_size] for i in range(0, len(rest), batch_size))
            batches = (
                (x[chunk], t[chunk], num_counted(self.model, t[chunk]), len(chunk), 1.0)
                for chunk in chunks
            )
            yield from self._epoch(batches, len(x), batch_size, max_grad, eval_interval)

    def _epoch(
        self,
        batches: Iterator[Batch],
        columns: int,
        usual_size: int,
        max_grad: float | None,
        eval_interval: int | None,
    ) -> Iterator[Record | None]:
        """The rest of an epoch of ``columns`` columns; a batch has about ``usual_size`` of them."""
        unique = UniqueParameters(self.model.params, self.model.grads)
        if self.column == 0:
            self.in_epoch = 0
        self.progress.go_on()
        for x, t, targets, size, share in batches:
            place = self.epoch + 1, self.in_epoch + 1
            with self._all_or_nothing():
                loss, trouble = self._gradients(x, t, unique, max_grad)
                if trouble is not None:
                    self._stop_or_skip(trouble, place, unique)
                with _interrupts_wait():
                    if trouble is None:
                        self._update(unique, self.epoch + self.column / columns, share)
                        self.progress.add(sum_of_loss(self.model, loss, targets), targets)
                    self._count(size, columns, skipped=trouble is not None)
                    rest = 0 if self.column == 0 else columns - self.column
                    iterations = self.in_epoch - (-rest // usual_size)  # about, for random sizes
                    if self.skipped_in_a_row >= max(iterations, MAX_SKIPPED):
                        trouble = f"{self.skipped_in_a_row} updates in a row were not finite"
                        raise self._diverged(trouble, place, unique)
                    due = eval_interval is not None and self.in_epoch % eval_interval == 0
                    record, ends = None, self.column == 0
                    if (due or ends or self.iteration == 1) and self.progress.targets > 0:
                        record = self._record(place[0], iterations)
            self.progress.pause()
            if record is not None and not math.isfinite(record["loss"]):
                error = self._diverged(f"the loss is {record['loss']}", place, unique)
                yield record
                raise error
            yield record
            self.progress.go_on()

    def _gradients(
        self, x: Array, t: Array, unique: UniqueParameters, max_grad: float | None
    ) -> tuple[Scalar, str | None]:
        """The loss without penalties, and what is wrong with it or with the gradients."""
        with numpy.errstate(over="ignore", invalid="ignore"):  # the result is checked
            loss, penalty = self._forward(x, t)
            self._backward(unique)
            before = clip_grads(unique.grads, max_grad) if max_grad is not None else None
            trouble = None
            if self.on_nan == "skip" or isinstance(unique.params[0], numpy.ndarray):
                before = norm(unique.grads) if before is None else before
                for name, value in (("loss", loss), ("norm of the gradients", before)):
                    if trouble is None and not math.isfinite(value):
                        trouble = f"the {name} is {float(value)}"
        return plus(loss, -penalty), trouble

    def _forward(self, x: Array, t: Array) -> tuple[Scalar, Scalar]:
        """The loss, and what penalties have added to it."""
        return self.model.forward(x, t), getattr(self.model, "penalty", 0.0)

    def _backward(self, unique: UniqueParameters) -> None:
        self.model.backward()
        unique.add_tied()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Take back states and masks where the block ends before the iteration is counted."""
        iteration, model = self.iteration, self.model
        state = model.get_state() if hasattr(model, "get_state") else None
        drawn = [(m, m.passes) for m in (model.masks() if hasattr(model, "masks") else [])]
        try:
            yield
        except BaseException:
            if self.iteration == iteration:
                if state is not None:
                    model.set_state(state)
                for masks, passes in drawn:
                    masks.passes = passes
            raise

    def _update(self, unique: UniqueParameters, epochs_done: float, share: float) -> None:
        """Let the optimizer descend by the schedule's rate, times ``share``."""
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(epochs_done)
        if self.average is not None:
            self.average.begin_update(unique.grads)
        rate = self.optimizer.lr
        self.optimizer.lr = rate * share
        try:
            with numpy.errstate(over="ignore", invalid="ignore"):  # the next loss will show it
                self.optimizer.update(unique.params, unique.grads)
        finally:
            self.optimizer.lr = rate
        if self.average is not None:
            self.average.update()

    def _count(self, size: int, columns: int, skipped: bool) -> None:
        self.iteration += 1
        self.in_epoch += 1
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        self.column += size
        if self.column >= columns:
            self.epoch, self.column, self.order = self.epoch + 1, 0, self.order[:0]

    def _stop_or_skip(self, trouble: str, place: tuple[int, int], unique: UniqueParameters) -> None:
        """Raise DivergenceError, or see that the next window begins from a finite state."""
        if self.on_nan == "stop" or not all_finite(unique.params):
            raise self._diverged(trouble, place, unique)
        if not self._state_is_finite():
            self.model.reset_state()

    def _state_is_finite(self) -> bool:
        state = self.model.get_state() if hasattr(self.model, "get_state") else []
        return all_finite(array for arrays in state if arrays is not None for array in arrays)

    def _diverged(
        self, trouble: str, place: tuple[int, int], unique: UniqueParameters
    ) -> DivergenceError:
        with numpy.errstate(over="ignore", invalid="ignore"):
            self._backward(unique)  # clipping by a norm that is not finite has spoilt them
        epoch, iteration = place
        return DivergenceError(
            f"{type(self).__name__}: {trouble} at iteration {iteration} of epoch {epoch}, "
            f"{first_not_finite(self.model, unique)}; try a smaller learning rate or a "
            "smaller max_grad"
        )

    def _record(self, epoch: int, iterations: int) -> Record:
        place: Record = {"epoch": epoch, "iteration": self.in_epoch, "iterations": iterations}
        place |= {"step": self.iteration, "lr": self.optimizer.lr}
        if self.on_nan == "skip":
            place["skipped"] = self.skipped
        self.curve.append({**place, **self.progress.record()})
        return self.curve[-1]

    @property
    def loss_list(self) -> list[float]:
        """The loss of every report so far."""
        return [record["loss"] for record in self.curve]

    @property
    def current_epoch(self) -> int:
        """Epochs finished, as ``epoch``."""
        return self.epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on, and what was reported so far.

        Arrays are copies; ``common.files.tensors`` puts them into a file. Ask between two calls
        of ``fit``, or between two ``iterations``.

        Raises:
            DivergenceError: where a weight, or a loss since the last report, is not finite.
            TypeError: for a model that carries a state and cannot give it.
        """
        if not all_finite([*self.model.params, np.asarray(self.progress.total)]):
            self._refuse_checkpoint()
        return model_state.trainer_state(self)

    def _refuse_checkpoint(self) -> None:
        unique = UniqueParameters(self.model.params, self.model.grads)
        raise DivergenceError(
            f"{type(self).__name__}: no checkpoint after {self.iteration} iterations, something "
            f"is not finite, {first_not_finite(self.model, unique)}; try a smaller learning "
            "rate or a smaller max_grad"
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned: the same updates follow, bit for bit.

        Model, optimizer and ``average`` must be built as they were then; their state is
        overwritten. ``fit`` then wants the same data, and the rest of the epoch in progress counts
        as one epoch.

        Raises:
            ValueError: for the state of another kind of trainer, optimizer, average or model.
        """
        model_state.load_trainer_state(self, state)

    def plot(
        self,
        ylim: Sequence[float] | None = None,
        path: str | os.PathLike[str] | None = None,
        valid: Sequence[tuple[float, float]] = (),
        bits: bool = False,
    ) -> None:
        """Draw perplexity and learning rate against iterations, from the first ``fit`` on.

        ``ylim`` bounds the perplexity (None: what comes after the first tenth, on a log scale);
        ``path`` is where to save the picture (None: show it, or without a screen curve.png);
        ``valid`` are more points (iteration, perplexity); ``bits`` adds an axis of bits per
        character to a log scale.
        """
        draw_curve(self.curve, valid, ylim, path, bits=bits)


class RnnlmTrainer(Trainer):
    """Trains a recurrent language model by truncated backpropagation through time.

    The corpus is read as parallel streams; each epoch starts at their beginning with a zero state.
    ``fit`` again and it continues, also in mid-epoch after an interruption: epoch, curve, and
    ``column``, where the next window begins in the streams.

    Random windows are drawn by ``seed`` and ``iteration`` alone.
    """

    shuffles = False

    @property
    def ppl_list(self) -> list[float]:
        """The perplexity of every report so far, over all calls of ``fit``."""
        return [record["perplexity"] for record in self.curve]

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
            random_sizes: windows have random sizes around T (:func:`next_window`); the learning
                rate is scaled by each window's share of T.

        Raises:
            ValueError: where xs and ts differ in length or are shorter than one batch of N T.
            DivergenceError: when the loss or the norm of the gradients is no longer finite.
        """
        sizes = (batch_size, time_size, max_grad, eval_interval, random_offset, random_sizes)
        self._report(self.iterations(xs, ts, max_epoch, *sizes), max_epoch)

    def iterations(  # type: ignore[override]
        self,
        xs: Array,
        ts: Array,
        max_epoch: int = 10,
        batch_size: int = 20,
        time_size: int = 35,
        max_grad: float | None = None,
        eval_interval: int | None = 20,
        random_offset: bool = False,
        random_sizes: bool = False,
    ) -> Iterator[Record | None]:
        """As ``fit``, one update at a time: yields the record where one is due, else None.

        Errors are those of ``fit``.
        """
        who = type(self).__name__
        check_sizes(who, batch_size=batch_size, time_size=time_size, eval_interval=eval_interval)
        needed = batch_size * time_size
        if not needed <= len(xs) == len(ts):
            raise ValueError(
                f"{who}: expected at least one batch, {batch_size} streams of {time_size} steps = "
                f"{needed} tokens, and one target for each; got {len(xs)} and {len(ts)} targets"
            )
        xs, ts = streams(xs, batch_size, who), streams(ts, batch_size, who)
        length, on_device = xs.shape[1], ids_on_device(self.model, xs, ts)

        def batches() -> Iterator[Batch]:
            start, random = self.column, (random_offset, random_sizes)
            while start < length:
                window = next_window(length, time_size, start, self.seed, self.iteration, *random)
                size = window.stop - start
                share = size / time_size if random_sizes else 1.0
                x, t = (ids[:, window] for ids in on_device)
                yield x, t, num_counted(self.model, ts[:, window]), size, share
                start = window.stop

        for _ in range(max_epoch):
            if self.column >= length:  # a shorter corpus than the one before
                self.column = 0
            if self.column == 0:
                self.model.reset_state()
            yield from self._epoch(batches(), length, time_size, max_grad, eval_interval)


class Progress:
    """Adds up losses between two reports; the loss stays where it is until it is read.

    ``go_on`` starts the clock and ``pause`` stops it, so that what is done between two iterations
    does not count as training.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self.begin()

    def begin(self) -> None:
        """Begin a new sum."""
        self.total: Scalar = 0.0
        self.targets: Scalar = 0
        self.iterations, self.seconds = 0, 0.0

    def go_on(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self._since
        self._since = time.perf_counter()

    def add(self, loss: Scalar, targets: Scalar) -> None:
        """Count one iteration with its ``loss``, the sum over ``targets`` targets."""
        self.total = self.total + loss
        self.targets = self.targets + targets
        self.iterations += 1

    def record(self) -> Record:
        """Loss, perplexity and speed since the last record; begins anew."""
        targets = int(self.targets)
        loss = float(self.total) / targets  # waits for the device
        self.pause()
        record = {
            "loss": loss,
            "perplexity": perplexity_of(min(loss, 700)),  # finite, so that a curve can show it
            "ms_per_iteration": 1000 * self.seconds / self.iterations,
            "tokens_per_second": targets / self.seconds,
        }
        self.begin()
        return record


def next_window(
    length: int,
    time_size: int,
    start: int,
    seed: int,
    iteration: int,
    random_offset: bool = False,
    random_sizes: bool = False,
) -> slice:
    """The window of streams of ``length`` columns that begins at column ``start``.

    Args:
        length: columns of the streams.
        time_size: T.
        start: the column where the window begins.
        seed: 64 bits.
        iteration: windows read before this one, over all epochs.
        random_offset: as for ``RnnlmTrainer.fit``.
        random_sizes: likewise.

    Raises:
        ValueError: for a ``time_size`` below 1 or a ``start`` outside the streams.
    """
    check_sizes("next_window", time_size=time_size)
    if not 0 <= start < length:
        raise ValueError(f"next_window: expected a start in 0..{length - 1}, got {start}")
    size = time_size
    if random_offset or random_sizes:
        size = random_size(time_size, start, seed, iteration, random_offset, random_sizes)
    return slice(start, min(start + size, length))


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Inside, Ctrl-C waits for the end of the block, so that an update is whole or not begun."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda signum, frame: received.append(signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            raise KeyboardInterrupt
