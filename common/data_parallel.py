"""Training on P processes as on one: each has some of the streams, all have the same weights.

A process runs forward and backward on its own rows of every window. The gradients of all are added
up before the norm is taken, so clipping, update, schedule and averaging are those of one process,
done by every process alike. Synchronous data parallelism: Goyal et al. (2017), section 2.3.

The sum of a layer begins as soon as its gradients are written, while the layers below still work.
For that all gradients lie in one memory, in the order in which they are finished, and travel in
buckets of it (Li et al. 2020, section 3.2.3). The gradient of an embedding is zero but for the rows
of the tokens that were read: where those are fewer, the rows travel, not the table.

Shapes: N streams, T time steps, V classes, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy

from common import kernels
from common.files.model_state import named_params
from common.kernels.passes import add_rows
from common.kernels.threads import threads_are_named, usable_cores, use_threads
from common.np import Array, Scalar, as_float64, memory_address, np, padded_size, part_like, to_cpu
from common.optimizer import Optimizer, UniqueParameters
from common.perplexity.protocols import num_counted
from common.processes import Processes
from common.row_gradient import RowGradient
from common.time_layers import TimeEmbedding
from common.trainer import Record, RnnlmTrainer

__all__ = ["DataParallelTrainer", "differing_weights", "share_cores"]

BUCKET = 1 << 20  # bytes, from which a sum is begun: well above what its latency costs


class DataParallelTrainer(RnnlmTrainer):
    """``RnnlmTrainer`` on the processes that MPI started.

    Every process makes the same calls with the same corpus. ``state_dict`` is that of a run on one
    process, and ``load_state_dict`` takes it, whatever P was.

    Args:
        model: a language model (``models.LanguageModel``) with the same weights everywhere.
        optimizer: as for ``RnnlmTrainer``.
        processes: this process and the others.
        options: as for ``RnnlmTrainer``.

    Attributes:
        overlap: whether sums begin during the backward pass, or all at its end.

    Raises:
        TypeError: for a model that has no ``backward_by_layer``, or a ``backward`` of its own.
    """

    def __init__(
        self, model: Any, optimizer: Optimizer, *, processes: Processes, **options: Any
    ) -> None:
        for kind in type(model).__mro__:
            if "backward_by_layer" in vars(kind):
                break
            if "backward" in vars(kind):
                raise TypeError(
                    f"{type(self).__name__}: expected a model that goes back layer by layer, by "
                    f"backward_by_layer; {kind.__name__} has another backward"
                )
        super().__init__(model, optimizer, **options)
        self.processes = processes
        self.overlap = True
        self._buckets: list[Array] = []  # what is summed after each layer, in backward order
        self._rows_of: TimeEmbedding | None = None  # the embedding of which rows travel
        self._begun = 0  # layers whose sums have begun
        self._sums: list[Callable[[], None]] = []  # what waits for each of those
        self._shares = (1.0, 1.0)  # of this process in the mean over targets, and over streams
        self._numbers: list[int] = []  # streams of each process

    def iterations(self, *arguments: Any, **named: Any) -> Iterator[Record | None]:
        """As ``RnnlmTrainer.iterations``.

        Raises:
            ValueError: where there are fewer streams than processes.
        """
        given = signature(super().iterations).bind(*arguments, **named)
        given.apply_defaults()
        N, T = given.arguments["batch_size"], given.arguments["time_size"]
        self._numbers = self.processes.shares(N)
        self._lay_out(N * T)
        yield from super().iterations(*given.args, **given.kwargs)

    # --- the memory of the gradients

    def _lay_out(self, num_tokens: int) -> None:
        """Move the gradients into one memory, in the order in which they are finished.

        A ``RowGradient`` stays what it is: its rows travel.

        Args:
            num_tokens: N T, which decides whether the rows of an embedding travel.

        Raises:
            TypeError: for a ``RowGradient`` of another layer than an embedding below all others.
        """
        layers, below = self.model.layers, self.model.layers_below_loss
        order = [*layers[len(below) :], *reversed(below)]
        lowest = order[-1]
        rows_travel = isinstance(lowest, TimeEmbedding) and (
            num_tokens < len(lowest.params[0]) or _is_rows(lowest.grads[0])
        )
        self._rows_of = lowest if rows_travel else None
        for layer in order:
            if layer is not self._rows_of and any(map(_is_rows, layer.grads)):
                raise TypeError(
                    f"{type(self).__name__}: expected no gradient of rows but that of an embedding "
                    f"below all other layers, got one of {layer}; build it with sparse=False"
                )
        finished_by: dict[int, int] = {}  # address of a gradient: the last layer that writes it
        for k, layer in enumerate(order):
            if layer is self._rows_of:
                continue
            finished_by |= {memory_address(grad): k for grad in layer.grads}
        groups: list[list[int]] = [[] for _ in range(len(order) + 1)]  # of gradients, by layer
        sizes = [0 if _is_rows(grad) else padded_size(grad) for grad in self.model.grads]
        for at, grad in enumerate(self.model.grads):
            if sizes[at]:
                groups[finished_by.get(memory_address(grad), len(order))].append(at)
        memory = np.zeros(sum(sizes), dtype=self.model.grads[0].dtype)
        views, end, begun = list(self.model.grads), 0, 0
        self._buckets = [memory[:0]] * len(order)
        last = max(finished_by.values())
        for k, group in enumerate(groups):
            for at in group:
                views[at] = part_like(memory[end:], views[at])
                end += sizes[at]
            if k <= last and ((end - begun) * memory.itemsize >= BUCKET or k == last):
                self._buckets[k], begun = memory[begun:end], end
        self.model.replace_gradients(views)

    # --- one iteration

    def _forward(self, x: Array, t: Array) -> tuple[Scalar, Scalar]:
        """Loss and penalty of all streams; known once ``_backward`` has ended."""
        model, N = self.model, len(x)
        rows = self.processes.rows(N)
        for masks in model.masks():
            masks.first_stream = rows.start
        own, everyone = (num_counted(model, ids) for ids in (t[rows], t))
        of_targets = 1.0 if model.sums_loss else as_float64(own / np.maximum(everyone, 1))
        of_penalties = self._numbers[self.processes.rank] / N
        self._shares = of_targets, of_penalties
        loss, penalty = model.forward(x[rows], t[rows]), model.penalty * of_penalties
        loss = (loss - model.penalty) * of_targets + penalty
        sums = np.stack([np.asarray(part, dtype="float64") for part in (loss, penalty)])
        self._sums.append(self.processes.begin_sum(sums))
        return sums[0, ...], sums[1, ...]

    def _backward(self, unique: UniqueParameters) -> None:
        """Backward, adding up over all processes; what is finished travels meanwhile."""
        self._begun = 0
        with self._rows_travel():
            for k, _ in enumerate(self.model.backward_by_layer(*self._shares), start=1):
                if self.overlap:
                    self._begin_sums(k)
        self._finish_sums()
        unique.add_tied()

    @contextmanager
    def _rows_travel(self) -> Iterator[None]:
        """Inside, the embedding whose rows travel adds those of all processes."""
        if self._rows_of is None:
            yield
            return
        self._rows_of.add_rows = self._add_rows_of_all  # type: ignore[assignment]
        try:
            yield
        finally:
            self._rows_of.add_rows = add_rows

    def _begin_sums(self, number: int) -> None:
        """Begin those after the first ``number`` layers of the backward pass."""
        for bucket in self._buckets[self._begun : number]:
            if bucket.size:
                self._sums.append(self.processes.begin_sum(bucket))
        self._begun = max(self._begun, number)

    def _finish_sums(self) -> None:
        """Begin those that have not begun, and wait for all."""
        self._begin_sums(len(self._buckets))
        while self._sums:
            self._sums.pop(0)()

    def _add_rows_of_all(self, dW: Array | RowGradient, ids: Array, rows: Array) -> None:
        """Add the gradients of the tokens of every process into dW (V, D).

        The embedding is the last layer of the backward pass, so all other gradients are finished.

        Args:
            dW: the output layer's share, if any, in it already.
            ids: of this process (T N/P,).
            rows: of this process (T N/P, D).
        """
        steps = len(ids) // self._numbers[self.processes.rank]
        numbers = [steps * number for number in self._numbers]
        rows = np.ascontiguousarray(rows)
        all_ids, all_rows = (self.processes.rows_of_all(a, numbers) for a in (ids, rows))
        self._finish_sums()
        add_rows(dW, all_ids, all_rows)

    def _state_is_finite(self) -> bool:
        return self.processes.highest(not super()._state_is_finite()) == [0]

    # --- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """As ``RnnlmTrainer.state_dict``: the state of all streams, whoever had them.

        Every process must ask.

        Raises:
            RuntimeError: where the weights of the processes differ.
        """
        state = super().state_dict()
        if differs := differing_weights(self.model, self.processes):
            raise RuntimeError(f"{type(self).__name__}: {differs}")
        own = [
            arrays and [to_cpu(array) for array in arrays] for arrays in state["model"]["recurrent"]
        ]
        state["model"]["recurrent"] = [
            layer[0] and [numpy.concatenate(arrays) for arrays in zip(*layer, strict=True)]
            for layer in zip(*self.processes.of_all(own), strict=True)
        ]
        return {**state, "trainer": RnnlmTrainer.__name__}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As ``RnnlmTrainer.load_state_dict``, for this process's streams."""
        own = [
            arrays and [array[self.processes.rows(len(array))] for array in arrays]
            for arrays in state["model"]["recurrent"]
        ]
        model = {**state["model"], "recurrent": own}
        super().load_state_dict({**state, "model": model, "trainer": type(self).__name__})


def _is_rows(gradient: Any) -> bool:
    return isinstance(gradient, RowGradient)


def share_cores(processes: Processes, batch_size: int) -> list[str]:
    """Share the cores of each machine among its processes; see that all compute alike.

    Where the user names no number of threads, a process gets an equal part of the cores that it
    may use together with others. All take the smallest number of any process, since NumPy's
    products may depend on it.

    Args:
        processes: this one and the others.
        batch_size: streams N.

    Returns:
        One line about all, and one for each.

    Raises:
        RuntimeError: where processes compute by other kernels, another NumPy or another BLAS.
        ValueError: where there are fewer streams than processes.
    """
    shares = processes.shares(batch_size)
    if not threads_are_named():
        use_threads(min(processes.of_all(_cores(processes))))
    status = kernels.status()
    alike = {"NumPy": numpy.__version__, "kernels": status["key"], "BLAS": status["blas"]}
    alike["threads"] = status["threads"]
    everyone = processes.of_all(alike)
    for rank, theirs in enumerate(everyone):
        for what, value in theirs.items():
            if value != everyone[0][what]:
                raise RuntimeError(
                    f"process {rank + 1} of {processes.size} on {processes.hosts[rank]} computes "
                    f"with {what} {value}, the first with {everyone[0][what]}: their weights would "
                    "drift apart"
                )
    lines, begin = [], 0
    for rank, number in enumerate(shares):
        lines.append(
            f"process {rank + 1} on {processes.hosts[rank]}: streams {begin} to "
            f"{begin + number - 1}, threads: {status['threads']}"
        )
        begin += number
    machines = len(set(processes.hosts))
    where = "one machine" if machines == 1 else f"{machines} machines"
    return [f"{batch_size} streams on {processes.size} processes, {where}", *lines]


def _cores(processes: Processes) -> int:
    """How many cores are this process's, where others may use the same; 1 or more."""
    cores = usable_cores()
    mine = processes.hosts[processes.rank], cores
    return max(1, len(cores) // processes.of_all(mine).count(mine))


def differing_weights(model: Any, processes: Processes) -> str:
    """Which parameter is not that of the first process, and whose; empty where all are equal."""
    names = named_params(model)
    hashes = {
        name: hashlib.blake2b(numpy.ascontiguousarray(to_cpu(param)).data).hexdigest()
        for name, param in names.items()
    }
    first, *others = processes.of_all(hashes)
    for rank, theirs in enumerate(others, start=2):
        if wrong := [name for name in names if theirs[name] != first[name]]:
            return (
                f"the weights of process {rank} of {processes.size} are not those of the first: "
                f"{', '.join(wrong)}"
            )
    return ""
