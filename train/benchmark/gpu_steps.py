"""Training steps of the library on a GPU: how long they take, and which parts of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

import numpy

from common import trainer as trainer_module
from common.np import np
from common.optimizer import SGD
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm, Rnnlm
from models.language_model import LanguageModel

__all__ = ["MODELS", "Events", "GpuModel", "Steps", "milliseconds", "parts_of_a_step", "words"]

MAX_GRAD = 0.25
STEPS_OF_TEXT = 200  # after which the text begins again


@dataclass(frozen=True)
class GpuModel:
    """A model and the window that it is trained on; the defaults are Zaremba's medium LSTM.

    Attributes:
        name: of its class.
        D: width of the word vectors.
        H: width of the recurrent layers; of AwdRnnlm, but the last, which is D wide.
        L: recurrent layers.
        dropout: for BetterRnnlm.
        N, T, V: batch, steps, vocabulary.
    """

    name: str = "BetterRnnlm"
    D: int = 650
    H: int = 650
    L: int = 2
    dropout: float = 0.5
    N: int = 20
    T: int = 35
    V: int = 10_000

    def build(self) -> LanguageModel:
        """The model, on the GPU while ``config.GPU``."""
        if self.name == "Rnnlm":
            return Rnnlm(self.V, self.D, self.H, rng=1, num_layers=self.L)
        if self.name == "AwdRnnlm":
            return AwdRnnlm(self.V, self.D, self.H, self.L, rng=1)
        return BetterRnnlm(self.V, self.D, self.H, self.dropout, rng=1, num_layers=self.L)


MODELS = [
    GpuModel("Rnnlm", D=100, H=100, L=1),
    GpuModel("BetterRnnlm"),
    GpuModel("AwdRnnlm", D=400, H=1150, L=3),
]


class Events(Protocol):
    """Places in what a device was asked to do."""

    def mark(self) -> Any:
        """One of them, here."""

    def milliseconds(self, begin: Any, end: Any) -> float:
        """Between two of them; waits for the second."""


class CupyEvents:
    """``Events`` of CuPy's current stream."""

    def mark(self) -> Any:
        """An event, recorded."""
        event = _cuda().Event()
        event.record()
        return event

    def milliseconds(self, begin: Any, end: Any) -> float:
        """By the clock of the device."""
        end.synchronize()
        return float(_cuda().get_elapsed_time(begin, end))


def _cuda() -> Any:
    return np.cuda  # type: ignore[attr-defined]


def words(model: GpuModel) -> numpy.ndarray:
    """Ids as often as words are: by Zipf's law, so that ids occur more than once in a window."""
    p = 1 / (numpy.arange(model.V) + 2.7)
    rng = numpy.random.default_rng(1)
    length = model.N * model.T * STEPS_OF_TEXT + 1
    return rng.choice(model.V, length, p=p / p.sum()).astype("int32")


class Steps:
    """Trains a model as its users do, so many steps at a time.

    Args:
        model: which, and its sizes.
    """

    def __init__(self, model: GpuModel) -> None:
        self.model = model.build()
        self.trainer = RnnlmTrainer(
            self.model, SGD(1.0), lambda record: None, numpy.random.default_rng(1)
        )
        ids = words(model)
        sizes = (model.N, model.T, MAX_GRAD, None)
        self._iterations = self.trainer.iterations(ids[:-1], ids[1:], 1 << 30, *sizes)
        self(1)

    def __call__(self, count: int) -> None:
        """Train on the next ``count`` windows."""
        for _ in range(count):
            next(self._iterations)


def milliseconds(
    work: Mapping[str, Callable[[int], None]],
    events: Mapping[str, Events],
    count: int,
    repeats: int,
) -> dict[str, list[float]]:
    """Milliseconds a step of each side, measured in turns.

    Args:
        work: by side: a function that trains so many steps.
        events: by side: its clock.
        count: steps in one measurement.
        repeats: measurements of each side.
    """
    samples: dict[str, list[float]] = {side: [] for side in work}
    for side, run in work.items():
        run(max(1, count // 4))  # compiles, chooses algorithms, fills pools of memory
        events[side].milliseconds(events[side].mark(), events[side].mark())
    for _ in range(repeats):
        for side, run in work.items():
            begin = events[side].mark()
            run(count)
            samples[side].append(events[side].milliseconds(begin, events[side].mark()) / count)
    return samples


def parts_of_a_step(steps: Steps, events: Events, count: int) -> dict[str, float]:
    """Milliseconds of each part of a step, the mean of ``count``, the whole step last.

    What is between the parts, and what the host takes longer than the device, is "the rest".
    """
    spans: list[tuple[str, Any, Any]] = []

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            begin = events.mark()
            try:
                return function(*args, **options)
            finally:
                spans.append((name, begin, events.mark()))

        return call

    begin = events.mark()
    with _every_part(steps, timed):
        steps(count)
    whole = events.milliseconds(begin, events.mark()) / count
    found: dict[str, float] = defaultdict(float)
    for name, *ends in spans:
        found[name] += events.milliseconds(*ends) / count
    found["the rest"] = whole - sum(found.values())
    return {**found, "whole": whole}


@contextmanager
def _every_part(
    steps: Steps, timed: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Inside, each layer, the loss, clipping and update go through ``timed``."""
    model, kinds = steps.model, defaultdict[str, int](int)
    replaced: list[tuple[Any, str]] = []

    def replace(owner: Any, attribute: str, name: str) -> None:
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
        replaced.append((owner, attribute))

    for layer in [*model.layers_below_loss, model.loss_layer]:
        kinds[layer.kind] += 1
        for way in ("forward", "backward"):
            replace(layer, way, f"{layer.kind}{kinds[layer.kind]} {way}")
    replace(steps.trainer.optimizer, "update", "update")
    clip_grads = trainer_module.clip_grads
    trainer_module.clip_grads = timed("clip", clip_grads)
    try:
        yield
    finally:
        trainer_module.clip_grads = clip_grads
        for owner, attribute in replaced:
            delattr(owner, attribute)


def mean(samples: list[float]) -> float:
    """Of the samples but the first, where there are more."""
    return fmean(samples[1:] or samples)
