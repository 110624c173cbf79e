"""A run of a language model: train, validate after each epoch, report."""

from __future__ import annotations

import math
import platform
import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy

from common import config
from common.averaging import WeightAverage, validation_got_worse
from common.divergence import DivergenceError
from common.optimizer import UniqueParameters
from common.perplexity.protocols import eval_perplexity, eval_perplexity_exact
from common.plotting import Status, draw_curve, say
from common.trainer import RnnlmTrainer
from datasets.corpus import Corpus
from datasets.vocabulary import UNK
from models.language_model import LanguageModel
from train.run import checkpoint
from train.run.folder import RunFolder
from train.run.options import LanguageModelOptions
from train.run.process import OneProcess, Stopped, this_process
from train.run.saved_options import command_to_resume, options_to_resume
from train.run.saved_run import start_from

__all__ = ["Training", "evaluate", "train"]


def train(script: str, options: LanguageModelOptions) -> None:
    """Train, validate after each epoch, keep the best weights, report; or resume such a run.

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
    process, run = this_process(), None
    if options.resume is not None:
        run = RunFolder(options.resume, process.first)
        options = process.from_first(lambda: options_to_resume(script, options))
    optimizer = options.build_optimizer()
    rate = options.build_schedule()
    corpus = process.from_first(lambda: options.load_corpus(run))
    options = process.from_first(lambda: options.fitted_to(corpus))
    rng = numpy.random.default_rng(options.seed)
    model = options.new_model(corpus, rng)
    if options.start_from is not None:
        process.from_first(partial(start_from, options.start_from, model, run))
    if run is None:  # what is wrong with an option has been said before there is a folder
        create = partial(RunFolder.create, script, corpus.name, options, corpus)
        run = RunFolder(process.from_first(lambda: create().path), process.first)
    process.begin(model, options.batch_size, options.verbose)
    with process, run.locked():
        trainer = process.trainer(model, optimizer, rng=rng, on_nan=options.on_nan)
        training = Training(run, options, corpus, trainer, process)
        if rate is not None:
            trainer.schedule = lambda epochs_done: rate(epochs_done, training.decays)
        print(f"{type(model).__name__}, {training.num_params:,} parameters; {run.path}")
        print(corpus.about, flush=True)
        try:
            if options.resume is not None and not checkpoint.resume(training, script):
                return
            with run.event_file(options.tensorboard, training.seconds()):
                training.go_on()
            process.at_once = True  # the report can be repeated, so nothing need be finished
            process.from_first(training.report)
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
        trainer: does the iterations.
        process: says when to stop; one of several, if others share the work.

    Attributes:
        best: the lowest validation perplexity so far; its weights are in the folder.
        valid_points: (iteration, validation perplexity) after each epoch.
        decays: how many validations were no improvement; the rate is divided after each.
    """

    def __init__(
        self,
        run: RunFolder,
        options: LanguageModelOptions,
        corpus: Corpus,
        trainer: RnnlmTrainer,
        process: OneProcess,
    ) -> None:
        self.run, self.options, self.corpus, self.trainer = run, options, corpus, trainer
        self.model, self.process = trainer.model, process
        self.num_params = sum(param.size for param in self.model.params)
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

    def early_stop(self) -> str:
        """Why the run ends before all epochs are done; empty where it does not."""
        return self.options.early_stop([value for _, value in self.valid_points])

    def average(self) -> None:
        """Begin to average the weights."""
        unique = UniqueParameters(self.model.params, self.model.grads)
        decay = self.options.average_decay if self.options.average == "ema" else None
        self.trainer.average = WeightAverage(unique.params, decay)

    def go_on(self) -> None:
        """Train and validate until all epochs are done, or so many in vain as --stop-after says.

        Raises:
            Stopped: where a signal has come; everything is written then.
        """
        options, trainer = self.options, self.trainer
        with closing(Status(options.epochs, trainer.iteration)) as self.status:
            self._validate_finished_epoch()
            options.begin_epoch(self.model, trainer.epoch)
            left = 0 if self.early_stop() else options.epochs - trainer.epoch
            xs, ts = self.corpus.train[:-1], self.corpus.train[1:]
            for record in trainer.iterations(xs, ts, left, **options.windows()):
                if record is not None:
                    self.status.show(record)
                    self.run.log({**record, "seconds": self.seconds()})
                minutes = (time.perf_counter() - self._saved_at) / 60
                due = self.process.agree(0 < options.checkpoint_every <= minutes)
                if self.process.received is not None:
                    self._leave()
                if trainer.column == 0 or due:
                    self.save()  # the column is 0 where an epoch has just ended
                self._validate_finished_epoch()
                if self.early_stop():
                    break

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.save(self)
        self._saved_at = time.perf_counter()

    def _leave(self) -> None:
        """Write everything, say how far the run has come, and stop."""
        self.save()
        self.status.close()
        say(f"| stopped after iteration {self.trainer.iteration}, checkpoint written")
        valid = self.process.from_first(self.valid_perplexity)
        say(f"| validation perplexity {valid:.2f}{self.corpus.vocabulary.bits_beside(valid)}")
        self.process.check()

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated: their average, if there is one."""
        average = self.trainer.average
        return nullcontext() if average is None else average.applied()

    def valid_perplexity(self) -> float:
        """Perplexity of the validation text by the exact protocol."""
        with self._averaged():
            return eval_perplexity_exact(self.model, self.corpus.valid, self.corpus.first_id)

    def _validate_finished_epoch(self) -> None:
        """Where an epoch has ended: measure, keep the weights if they are the best so far."""
        trainer = self.trainer
        if len(self.valid_points) == trainer.epoch:
            return
        valid = self.process.from_first(self.valid_perplexity)
        if not math.isfinite(valid):
            raise DivergenceError(f"the validation perplexity is {valid}")
        if not self.valid_points or valid < self.best:
            self.best = valid
            with self._averaged():
                self.run.keep_weights(self.model)
        else:
            self.decays += 1
        self.valid_points.append((trainer.iteration, valid))
        epoch, seconds = trainer.epoch, self.seconds()
        shown = f"{valid:.2f}{self.corpus.vocabulary.bits_beside(valid)}"
        where = f"| epoch {epoch} | {seconds:.0f} s, {self.status.run_left()} left"
        say(f"{where} | validation perplexity {shown}")
        record = {"epoch": epoch, "step": trainer.iteration, "valid": valid, "seconds": seconds}
        self.run.log(record)
        if self.options.average == "asgd" and trainer.average is None:
            self._average_if_it_is_time()
        self.options.begin_epoch(self.model, epoch)
        self.save()
        self.process.check()

    def _average_if_it_is_time(self) -> None:
        values = [value for _, value in self.valid_points]
        if validation_got_worse(values, self.options.average_window):
            say("| the weights are averaged from now on")
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
            "stopped_early": bool(self.early_stop()),
            **evaluate(model, self.corpus),
        }
        run.write_results(results)
        if trainer.skipped:
            print(f"{trainer.skipped} of {trainer.iteration} updates skipped: they were not finite")
        print_sample(model, self.corpus, self.options.seed)
        bits = self.corpus.vocabulary.bits_beside(self.best)
        title = f"{type(model).__name__} on {self.corpus.name}: validation {self.best:.2f}{bits}"
        points, of_characters = self.valid_points, self.corpus.level == "char"
        draw_curve(trainer.curve, points, path=run.curve_file, bits=of_characters, title=title)
        print(f"run saved in {run.path} ({seconds:.0f} s of training{self.early_stop()})")


def evaluate(model: LanguageModel, corpus: Corpus) -> dict[str, Any]:
    """Print and return valid and test perplexity by the exact and by the book's protocol.

    A split that is too short for one batch of the book's protocol has the exact one only. At
    character level bits per character stand beside. Name of the corpus and version of Python, on
    which a figure may depend, are returned, too.
    """
    results: dict[str, float] = {}
    print("perplexity    exact     book")
    for split, tokens in (("valid", corpus.valid), ("test", corpus.test)):
        exact = results[f"{split}_exact"] = eval_perplexity_exact(model, tokens, corpus.first_id)
        try:
            results[f"{split}_book"] = eval_perplexity(model, tokens)
            book = f"{results[f'{split}_book']:8.2f}"
        except ValueError:  # shorter than 10 streams of 35 steps, and one token
            book = f"  (needs 351 tokens, there are {len(tokens)})"
        bits = corpus.vocabulary.bits_beside(exact, " | exact: ")
        print(f"{split:<10} {exact:8.2f} {book}{bits}", flush=True)
    results |= corpus.vocabulary.in_bits(results)
    return {**results, "corpus": corpus.name, "python": platform.python_version()}


def print_sample(model: LanguageModel, corpus: Corpus, seed: int) -> None:
    """Print a text that the model makes up."""
    skip = [corpus.word_to_id[UNK]] if UNK in corpus.word_to_id else []
    ids = model.generate(corpus.first_id, 60, skip_ids=skip, rng=seed)
    print(f"sample:\n{corpus.decode(ids[1:])}")
