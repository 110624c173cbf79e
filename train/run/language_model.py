"""A run of a language model: train, validate after each epoch, report."""

from __future__ import annotations

import math
import platform
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy

from common import config, kernels
from common.averaging import WeightAverage, validation_got_worse
from common.divergence import DivergenceError
from common.optimizer import Optimizer, UniqueParameters
from common.perplexity.protocols import eval_perplexity, eval_perplexity_exact
from common.trainer import RnnlmTrainer, print_record
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run import checkpoint
from train.run.folder import RunFolder
from train.run.options import LanguageModelOptions
from train.run.saved_options import command_to_resume, options_to_resume
from train.run.signals import Stopped, StopSignals

__all__ = ["LanguageModelOptions", "Training", "evaluate", "train"]


def train(script: str, options: LanguageModelOptions) -> None:
    """Train, validate after each epoch, keep the best weights, report; or go on with all that.

    Raises:
        DivergenceError: when the loss or the gradients are no longer finite.
        FileExistsError: where the folder holds a run already.
        InUseError: where another process trains in the folder.
        OSError: where a file cannot be read or written.
        Stopped: after Ctrl-C or SIGTERM.
        ValueError: for options that cannot work, or that do not belong to the run to resume.
    """
    options.check()
    options = replace(options, gpu=options.gpu or config.GPU).with_whole_paths()
    run = None
    if options.resume is not None:
        run, options = options_to_resume(script, options, options.changeable())
    optimizer = options.build_optimizer()
    rate = options.build_schedule()
    corpus = options.load_corpus()
    options.check_length(corpus)
    rng = numpy.random.default_rng(options.seed)
    model = options.build(corpus.vocab_size, rng)
    model.vocabulary_hash = corpus.vocabulary.hash()
    if options.unigram_bias:
        model.set_output_bias(numpy.bincount(corpus.train, minlength=corpus.vocab_size))
    if run is None:  # what is wrong with an option has been said before there is a folder
        run = RunFolder.create(script, corpus.name, options, corpus)
    kernels.prepare()
    kernels.print_notice()
    with StopSignals() as stop, run.locked():
        training = Training(run, options, corpus, model, optimizer, rng, stop)
        if rate is not None:
            training.trainer.schedule = lambda epochs_done: rate(epochs_done, training.decays)
        print(f"{type(model).__name__}, {training.num_params:,} parameters; {run.path}")
        print(corpus.about, flush=True)
        try:
            if options.resume is not None and not checkpoint.resume(training, script):
                return
            training.go_on()
            stop.at_once = True  # from here on nothing is lost that cannot be done again
            training.report()
        except Stopped:
            print(f"to go on: {command_to_resume(script, run.path)}", flush=True)
            raise
        except DivergenceError as error:
            raise DivergenceError(f"{error}: {_advice(script, run)}") from error


def _advice(script: str, run: RunFolder) -> str:
    """What to do about a run that diverged."""
    again = f"{command_to_resume(script, run.path)} " if run.checkpoint_file.exists() else ""
    return (
        "start anew with another --lr or --max-grad, or leave such updates out, "
        f"{again}--on-nan skip"
    )


class Training:
    """What a run has done so far, and how it goes on from any iteration.

    Args:
        run: its folder, locked.
        options: what was asked for.
        corpus: what is read.
        model: what is trained.
        optimizer: its update rule.
        rng: the generator of the run, which has drawn the initial weights.
        stop: says when to stop.

    Attributes:
        trainer: does the iterations.
        best: the lowest validation perplexity so far; its weights are in the folder.
        valid_points: (iteration, validation perplexity) after each epoch.
        decays: how many validations were no improvement; the rate is divided after each.
    """

    def __init__(
        self,
        run: RunFolder,
        options: LanguageModelOptions,
        corpus: Corpus,
        model: LanguageModel,
        optimizer: Optimizer,
        rng: numpy.random.Generator,
        stop: StopSignals,
    ) -> None:
        self.run, self.options, self.corpus, self.model = run, options, corpus, model
        self.stop = stop
        self.trainer = RnnlmTrainer(model, optimizer, rng=rng, on_nan=options.on_nan)
        self.num_params = sum(param.size for param in model.params)
        self.go_back_to(math.inf, [], 0.0)
        if options.average == "ema":
            self.average()

    def go_back_to(
        self, best: float, valid_points: list[tuple[float, float]], seconds: float
    ) -> None:
        """Take over what was measured so far, and start the clock."""
        self.best, self.valid_points, self._seconds = best, valid_points, seconds
        values = [value for _, value in valid_points]
        self.decays = sum(value >= min(values[:k]) for k, value in enumerate(values) if k > 0)
        self._since = self._saved_at = time.perf_counter()

    def seconds(self) -> float:
        """Time spent on the run, by every process that has worked on it."""
        return self._seconds + time.perf_counter() - self._since

    def average(self) -> None:
        """Keep an average of the weights from here on."""
        unique = UniqueParameters(self.model.params, self.model.grads)
        decay = self.options.average_decay if self.options.average == "ema" else None
        self.trainer.average = WeightAverage(unique.params, decay)

    def go_on(self) -> None:
        """Train and validate until all epochs are done.

        Raises:
            Stopped: where a signal has come; everything is written then.
        """
        options, trainer = self.options, self.trainer
        self._validate_finished_epoch()
        for record in trainer.iterations(
            self.corpus.train[:-1],
            self.corpus.train[1:],
            max_epoch=options.epochs - trainer.epoch,
            batch_size=options.batch_size,
            time_size=options.time_size,
            max_grad=options.max_grad,
            eval_interval=options.log_interval,
            random_offset=options.random_offset,
            random_sizes=options.random_sizes,
        ):
            if record is not None:
                print_record(record)
                self.run.log(record)
            if self.stop.received is not None:
                self._leave()
            minutes = (time.perf_counter() - self._saved_at) / 60
            if trainer.column == 0 or 0 < options.checkpoint_every <= minutes:
                self.save()  # the column is 0 where an epoch has just ended
            self._validate_finished_epoch()

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(self)
        self._saved_at = time.perf_counter()

    def _leave(self) -> None:
        """Write everything, say how far the run has come, and stop."""
        self.save()
        print(f"| stopped after iteration {self.trainer.iteration}, checkpoint written", flush=True)
        with self._averaged():
            print(f"| validation perplexity {self.valid_perplexity():.2f}", flush=True)
        self.stop.check()

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that count: their average, where there is one."""
        average = self.trainer.average
        return nullcontext() if average is None else average.applied()

    def valid_perplexity(self) -> float:
        """Perplexity of the validation text by the exact protocol."""
        return eval_perplexity_exact(self.model, self.corpus.valid, self.corpus.first_id)

    def _validate_finished_epoch(self) -> None:
        """Where an epoch has ended: measure, keep the weights if they are the best so far."""
        trainer = self.trainer
        if len(self.valid_points) == trainer.epoch:
            return
        with self._averaged():
            valid = self.valid_perplexity()
            if not math.isfinite(valid):
                raise DivergenceError(f"the validation perplexity is {valid}")
            if not self.valid_points or valid < self.best:
                self.best = valid
                self.model.save_params(self.run.weights_file)
            else:
                self.decays += 1
        self.valid_points.append((trainer.iteration, valid))
        epoch, seconds = trainer.epoch, self.seconds()
        print(f"| epoch {epoch} | {seconds:.0f} s | validation perplexity {valid:.2f}", flush=True)
        record = {"epoch": epoch, "step": trainer.iteration, "valid": valid, "seconds": seconds}
        self.run.log(record)
        if self.options.average == "asgd" and trainer.average is None:
            self._average_if_it_is_time()
        self.save()
        self.stop.check()

    def _average_if_it_is_time(self) -> None:
        values = [value for _, value in self.valid_points]
        if validation_got_worse(values, self.options.average_window):
            print("| the weights are averaged from now on", flush=True)
            self.average()

    def report(self) -> None:
        """Measure the best weights, keep the results, let the weights write, draw the curve."""
        run, model, trainer, seconds = self.run, self.model, self.trainer, self.seconds()
        model.load_params(run.weights_file)
        results = {
            "parameters": self.num_params,
            "epochs": trainer.epoch,
            "seconds": seconds,
            "skipped": trainer.skipped,
            **evaluate(model, self.corpus),
        }
        run.write_results(results)
        if trainer.skipped:
            print(f"{trainer.skipped} of {trainer.iteration} updates skipped: they were not finite")
        print_sample(model, self.corpus, self.options.seed)
        trainer.plot(path=str(run.curve_file), valid=self.valid_points)
        print(f"run saved in {run.path} ({seconds:.0f} s of training)")


def evaluate(model: LanguageModel, corpus: Corpus) -> dict[str, Any]:
    """Print and return valid and test perplexity by the exact and by the book's protocol.

    A split that is too short for one batch of the book's protocol has the exact one only. Name of
    the corpus and version of Python, on which a figure may depend, are returned, too.
    """
    results: dict[str, Any] = {"corpus": corpus.name, "python": platform.python_version()}
    print("perplexity    exact     book")
    for split in ("valid", "test"):
        tokens: Any = getattr(corpus, split)
        exact = eval_perplexity_exact(model, tokens, corpus.first_id)
        results[f"{split}_exact"] = exact
        try:
            results[f"{split}_book"] = eval_perplexity(model, tokens)
            book = f"{results[f'{split}_book']:8.2f}"
        except ValueError:
            book = f"  (needs 351 tokens, there are {len(tokens)})"
        print(f"{split:<10} {exact:8.2f} {book}", flush=True)
    return results


def print_sample(model: LanguageModel, corpus: Corpus, seed: int) -> None:
    """Print a text that the model makes up."""
    unknown = corpus.word_to_id.get("<unk>")
    skip = [] if unknown is None else [unknown]
    ids = model.generate(corpus.first_id, 60, skip_ids=skip, rng=seed)
    print(f"sample:\n{corpus.decode(ids[1:])}")
