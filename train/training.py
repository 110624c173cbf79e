"""A language model's run in progress: epochs, validation, checkpoints, stops."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

import numpy

from common.checkpoint import read_checkpoint, write_checkpoint
from common.trainer import Record, RnnlmTrainer, print_record
from common.util import eval_perplexity_exact
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.measured import read_results
from train.options import LanguageModelOptions, changeable
from train.recipe import Recipe, build_optimizer
from train.resume import fixed_options
from train.run_folder import RunFolder
from train.stopping import Stopped, StopSignals

__all__ = ["Training"]


class Training:
    """What a run has done so far, and how it goes on from any iteration.

    Args:
        run: its folder, locked.
        options: what was asked for.
        corpus: what is read.
        model: what is trained.
        rng: the generator of the run, which has drawn the initial weights.
        stop: says when to stop.

    Attributes:
        best: the lowest validation perplexity so far; its weights are in the folder.
        valid_points: (iteration, validation perplexity) after each epoch.
    """

    def __init__(
        self,
        run: RunFolder,
        options: LanguageModelOptions,
        corpus: Corpus,
        model: LanguageModel,
        rng: numpy.random.Generator,
        stop: StopSignals,
    ) -> None:
        self.run, self.options, self.corpus, self.model = run, options, corpus, model
        self.stop = stop
        self.num_params = sum(param.size for param in model.params)
        self.trainer = RnnlmTrainer(
            model,
            build_optimizer(options),
            self._on_record,
            rng,
            on_iteration=self._between_iterations,
            on_nan=options.on_nan,
        )
        self.recipe = Recipe(options)
        self.recipe.attach(self.trainer)
        self._corpus_id, self._version = _fingerprint(corpus), version("time-layers")
        self.best = math.inf
        self.valid_points: list[tuple[float, float]] = []
        self._seconds, self._since = 0.0, time.perf_counter()
        self._saved_at = time.perf_counter()

    def seconds(self) -> float:
        """Time spent on the run, by every process that has worked on it."""
        return self._seconds + time.perf_counter() - self._since

    def go_on(self) -> None:
        """Train and validate until all epochs are done."""
        options, trainer = self.options, self.trainer
        while True:
            if len(self.valid_points) < trainer.epoch:
                self._validate()
                self.save()
            self.stop.check()
            if trainer.epoch >= options.epochs:
                break
            trainer.fit(
                self.corpus.train[:-1],
                self.corpus.train[1:],
                max_epoch=1,
                batch_size=options.batch_size,
                time_size=options.time_size,
                max_grad=options.max_grad,
                eval_interval=options.log_interval,
                random_offset=options.random_offset,
                random_sizes=options.random_sizes,
            )

    def _on_record(self, record: Record) -> None:
        print_record(record)
        self.run.log(record)

    def _between_iterations(self, trainer: RnnlmTrainer) -> None:
        if self.stop.received is not None:
            self.save()
            print(f"| stopped after iteration {trainer.iteration}, checkpoint written", flush=True)
            with self._averaged():
                print(f"| validation perplexity {self._valid_perplexity():.2f}", flush=True)
            raise Stopped(self.stop.received)
        minutes = (time.perf_counter() - self._saved_at) / 60
        if trainer.column == 0 or 0 < self.options.checkpoint_every <= minutes:
            self.save()  # the column is 0 where an epoch has just ended

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that count: their average, where there is one."""
        average = self.trainer.average
        return nullcontext() if average is None else average.applied()

    def _valid_perplexity(self) -> float:
        return eval_perplexity_exact(self.model, self.corpus.valid, self.corpus.first_id)

    def _validate(self) -> None:
        """Measure; keep the weights if they are the best so far."""
        trainer = self.trainer
        with self._averaged():
            valid = self._valid_perplexity()
            if not self.valid_points or valid < self.best:
                self.best = valid
                self.model.save_params(self.run.weights_file)
        self.valid_points.append((trainer.iteration, valid))
        epoch, seconds = trainer.epoch, self.seconds()
        print(f"| epoch {epoch} | {seconds:.0f} s | validation perplexity {valid:.2f}", flush=True)
        record = {"epoch": epoch, "step": trainer.iteration, "valid": valid, "seconds": seconds}
        self.run.log(record)
        self.recipe.after_validation(trainer, [value for _, value in self.valid_points])

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            DivergenceError: where something is not finite; the checkpoint before it stays.
            OSError: where it cannot be written; the checkpoint before it stays.
        """
        checkpoint = {
            "trainer": self.trainer.state_dict(),
            "best": self.best,
            "valid_points": self.valid_points,
            "seconds": self.seconds(),
            "log_length": self.run.log_length(),
            "options": fixed_options(self.options, changeable(self.options)),
            "corpus": self._corpus_id,
            "version": self._version,
        }
        write_checkpoint(self.run.checkpoint_file, checkpoint)
        self._saved_at = time.perf_counter()

    def take_up(self, script: str) -> bool:
        """Go back to the last checkpoint; say whether there is anything left to do.

        Raises:
            ValueError: where the checkpoint, the config and the corpus do not fit together, or
                more epochs are done than asked for.
        """
        run, trainer, epochs = self.run, self.trainer, self.options.epochs
        if not run.checkpoint_file.exists():
            if run.weights_file.exists():
                raise ValueError(f"{run.path} has weights but no checkpoint to go on from")
            print("no checkpoint yet: starts from the beginning", flush=True)
            run.take_up(0)
            run.write_config(script, self.options)
            return True
        checkpoint = read_checkpoint(run.checkpoint_file)
        self._check(checkpoint)
        self.recipe.attach(trainer, averaging=checkpoint["trainer"].get("average") is not None)
        trainer.load_state_dict(checkpoint["trainer"])
        begun = trainer.epoch + (trainer.column > 0)
        if epochs < begun:
            raise ValueError(f"--epochs {epochs}: the run in {run.path} is in epoch {begun}")
        if read_results(run).get("epochs") == epochs == trainer.epoch:
            more = "; more with a larger --epochs" if "epochs" in changeable(self.options) else ""
            print(f"{run.path} is finished: {epochs} epochs done{more}")
            return False
        run.results_file.unlink(missing_ok=True)  # they are of weights that will change
        self.best = float(checkpoint["best"])
        self.valid_points = [(step, valid) for step, valid in checkpoint["valid_points"]]
        self.recipe.look_back([valid for _, valid in self.valid_points])
        self._seconds, self._since = float(checkpoint["seconds"]), time.perf_counter()
        run.take_up(checkpoint["log_length"])
        run.write_config(script, self.options)
        place = f"iteration {trainer.iteration}, {trainer.epoch} epochs done"
        print(f"goes on after {place}", flush=True)
        return True

    def _check(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError where config or corpus have changed; note another version."""
        file, fixed = (
            self.run.checkpoint_file,
            fixed_options(self.options, changeable(self.options)),
        )
        defaults = fixed_options(type(self.options)(), changeable(self.options))
        then = {**defaults, **checkpoint["options"]}  # an option may be younger than the checkpoint
        changed = [
            f"{name} {then.get(name)}, now {fixed.get(name)}"
            for name in sorted(then.keys() | fixed.keys())
            if then.get(name) != fixed.get(name)
        ]
        if changed:
            raise ValueError(f"{file}: made with {'; '.join(changed)} in config.json")
        if checkpoint["corpus"] != self._corpus_id:
            raise ValueError(f"{file}: the corpus {self.corpus.name} has changed since")
        if checkpoint["version"] != self._version:
            print(
                f"note: the checkpoint is by version {checkpoint['version']}, this is "
                f"{self._version}; the last digits may differ from here on",
                file=sys.stderr,
            )


def _fingerprint(corpus: Corpus) -> str:
    """SHA-256 of what a run reads while it trains."""
    digest = hashlib.sha256(corpus.train.tobytes())
    digest.update(corpus.valid.tobytes())
    return digest.hexdigest()
