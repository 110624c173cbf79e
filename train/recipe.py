"""Optimizer, learning rate and weight average of a language model's run, from its options."""

from __future__ import annotations

from collections.abc import Sequence

from common.averaging import NonMonotoneTrigger, WeightAverage
from common.optimizer import SGD, Adam, AdamW, Optimizer
from common.schedules import Schedule, build_schedule
from common.trainer import RnnlmTrainer
from common.tying import UniqueParameters
from train.options import LanguageModelOptions

__all__ = ["Recipe", "build_optimizer"]


def build_optimizer(options: LanguageModelOptions) -> Optimizer:
    """The update rule that the options name.

    Raises:
        ValueError: for a number out of range, or weight decay where the rule has none.
    """
    if not 0 <= options.weight_decay < 1:
        raise ValueError(f"--weight-decay: expected 0 <= decay < 1, got {options.weight_decay}")
    if options.optimizer == "sgd":
        return SGD(options.lr, options.weight_decay)
    if options.optimizer == "adamw":
        return AdamW(options.lr, weight_decay=options.weight_decay)
    if options.weight_decay:
        raise ValueError("--weight-decay: Adam has none that works; name --optimizer adamw")
    return Adam(options.lr)


class Recipe:
    """What changes while a run goes on: its learning rate, and whether weights are averaged.

    The rate follows from the epochs done and the validation perplexities so far, so a run that is
    taken up again finds it; of an average it has to know that there was one.

    Args:
        options: of the run.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, options: LanguageModelOptions) -> None:
        self.options = options
        self._schedule: Schedule = build_schedule(
            options.lr_schedule, options.lr, options.epochs, options.warmup
        )
        self._decays = 0

    def attach(self, trainer: RnnlmTrainer, averaging: bool = False) -> None:
        """Let the trainer follow the recipe; ``averaging`` says whether it had begun before."""
        trainer.schedule = self.learning_rate
        if averaging or self.options.average == "ema":
            self._average(trainer)

    def learning_rate(self, epochs_done: float) -> float:
        """The rate after so many epochs, such as 2.5."""
        return self._schedule(epochs_done) / self.options.lr_decay**self._decays

    def after_validation(self, trainer: RnnlmTrainer, values: Sequence[float]) -> None:
        """Look at all validation perplexities so far, the newest last."""
        self.look_back(values)
        if self.options.average == "asgd" and trainer.average is None:
            trigger = NonMonotoneTrigger(self.options.average_window)
            if [trigger.observe(value) for value in values][-1]:
                print("| from here on the weights are averaged", flush=True)
                self._average(trainer)

    def look_back(self, values: Sequence[float]) -> None:
        """Count the validation perplexities that were no improvement."""
        self._decays = sum(value >= min(values[:k]) for k, value in enumerate(values) if k > 0)

    def _average(self, trainer: RnnlmTrainer) -> None:
        unique = UniqueParameters(trainer.model.params, trainer.model.grads)
        decay = self.options.average_decay if self.options.average == "ema" else None
        trainer.average = WeightAverage(unique.params, decay)
