"""A run of a language model: its options, the loop over iterations, validation, the report."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy

from common import config
from common.averaging import WeightAverage, validation_got_worse
from common.divergence import DivergenceError
from common.files.checkpoint import read_checkpoint, write_checkpoint
from common.optimizer import SGD, Adam, AdamW, Optimizer, UniqueParameters, schedule
from common.perplexity.protocols import eval_perplexity, eval_perplexity_exact
from common.trainer import RnnlmTrainer, print_record
from datasets import load_corpus
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.folder import RunFolder, read_results
from train.run.saved_options import command_to_resume, fixed_options, options_to_resume
from train.run.signals import Stopped, StopSignals

__all__ = ["LanguageModelOptions", "evaluate", "train"]


@dataclass(frozen=True)
class LanguageModelOptions(ABC):
    """Options of every language-model script; the defaults are the book's."""

    corpus: str = "pydoc"
    """pydoc (English prose that ships with Python), ptb (Penn Treebank), markov (a random source
    of known entropy), or the path of your own UTF-8 text file."""
    data_dir: Path | None = None
    """Folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt; by default $TIMELAYERS_DATA, else
    they are downloaded once."""
    level: Literal["word", "char"] = "word"
    """How your own text file is cut into tokens."""
    max_vocab: int | None = None
    """Keep this many of the commonest tokens of your own text file; the rest become <unk>."""
    wordvec_size: int = 100
    """Width D of the word vectors."""
    hidden_size: int = 100
    """Width H of the recurrent layers."""
    epochs: int = 4
    """How often the training text is read."""
    batch_size: int = 20
    """Parallel streams N."""
    time_size: int = 35
    """Steps T through which the gradient flows."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """The update rule. Adam and AdamW want a learning rate near 0.001."""
    lr: float = 20.0
    """Learning rate of plain SGD; large, because the loss is a mean over N T tokens and clipped."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the learning rate goes on from there: cosine and linear reach 0 after all epochs."""
    warmup: float = 0.0
    """Epochs, such as 0.5, over which the learning rate rises from 0."""
    lr_decay: float = 1.0
    """Divide the learning rate by this when validation did not improve, on top of --lr-schedule; 1
    keeps it."""
    weight_decay: float = 0.0
    """Draw all weights towards 0 by the learning rate times this (sgd and adamw)."""
    max_grad: float = 0.25
    """Bound of the global norm of all gradients."""
    average: Literal["none", "asgd", "ema"] = "none"
    """Validate and keep an average of the weights: asgd, all since validation stopped improving;
    ema, an exponential one."""
    average_window: int = 5
    """For asgd: averaging begins when a validation is worse than the best one of before the last
    so many."""
    average_decay: float = 0.999
    """For ema: the share of the average that an update leaves."""
    random_offset: bool = False
    """Let the windows of each epoch begin elsewhere."""
    random_sizes: bool = False
    """Let each window have a random size around --time-size."""
    unigram_bias: bool = False
    """Begin with the output biases at the frequencies of the tokens."""
    log_interval: int = 20
    """Iterations between status lines."""
    seed: int = 1
    """Decides the initial weights, the dropout masks and the random windows."""
    gpu: bool = False
    """Train with CuPy on the GPU (GPU=1 does the same)."""
    checkpoint_every: float = 5.0
    """Minutes between checkpoints, from which a run that was stopped or killed goes on; there is
    one at the end of every epoch, too, and with 0 only there."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do where the loss or the gradients are not finite: stop and say where, or skip the
    update and count it."""
    out: Path | None = None
    """Folder of the run; runs/SCRIPT-CORPUS-NUMBER if not named."""
    resume: Path | None = None
    """Go on with the run in this folder, as if it had never stopped, or with more --epochs if it
    is finished. Its options are taken from there; only --epochs (where the learning rate does not
    depend on it), --data-dir, --checkpoint-every and --on-nan may change."""

    @abstractmethod
    def build(self, vocab_size: int, rng: numpy.random.Generator) -> LanguageModel:
        """The model that these options describe."""

    def load_corpus(self) -> Corpus:
        """The corpus that these options name."""
        return load_corpus(
            self.corpus, data_dir=self.data_dir, level=self.level, max_vocab=self.max_vocab
        )

    def build_optimizer(self) -> Optimizer:
        """The update rule that these options name.

        Raises:
            ValueError: for a number out of range, or weight decay where the rule has none.
        """
        if not 0 <= self.weight_decay < 1:
            raise ValueError(f"--weight-decay: expected 0 <= decay < 1, got {self.weight_decay}")
        if self.optimizer == "sgd":
            return SGD(self.lr, self.weight_decay)
        if self.optimizer == "adamw":
            return AdamW(self.lr, weight_decay=self.weight_decay)
        if self.weight_decay:
            raise ValueError("--weight-decay: Adam has none that works; name --optimizer adamw")
        return Adam(self.lr)

    def changeable(self) -> tuple[str, ...]:
        """Names of the options that may change when a run is resumed.

        Not the epochs where the learning rate is to end with them: what has been done was done
        with rates that belong to another run.
        """
        always = ("data_dir", "checkpoint_every", "on_nan")
        return ("epochs", *always) if self.lr_schedule == "constant" else always

    def check(self) -> None:
        """Raise ValueError for a number with which no run can work."""
        sizes = ("epochs", "batch_size", "time_size", "log_interval", "lr_decay", "average_window")
        for name in sizes:
            if not getattr(self, name) >= 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: expected 1 or more, got {getattr(self, name)}")
        if not 0 < self.max_grad < math.inf:
            raise ValueError(f"--max-grad: expected a norm above 0, got {self.max_grad}")
        if not self.warmup < self.epochs:
            raise ValueError(
                f"--warmup: expected less than the {self.epochs} epochs, got {self.warmup}"
            )
        if self.optimizer != "sgd" and self.lr > 1:
            raise ValueError(
                f"--lr: expected at most 1 for {self.optimizer}, whose steps are as long as the "
                f"rate; got {self.lr}"
            )
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"--average-decay: expected 0 <= decay < 1, got {self.average_decay}")
        if not 0 <= self.checkpoint_every < math.inf:
            raise ValueError(
                "--checkpoint-every: expected minutes, 0 for the ends of epochs only; "
                f"got {self.checkpoint_every}"
            )


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
    options = replace(options, gpu=options.gpu or config.GPU)
    run = None
    if options.resume is not None:
        run, options = options_to_resume(script, options, options.changeable())
    optimizer = options.build_optimizer()
    rate = schedule(options.lr_schedule, options.lr, options.epochs, options.warmup)
    corpus = options.load_corpus()
    needed = options.batch_size * options.time_size + 1
    if len(corpus.train) < needed:
        raise ValueError(
            f"{corpus.name}: expected at least {needed:,} training tokens for --batch-size "
            f"{options.batch_size} and --time-size {options.time_size}, got {len(corpus.train):,}"
        )
    rng = numpy.random.default_rng(options.seed)
    model = options.build(corpus.vocab_size, rng)
    if options.unigram_bias:
        model.set_output_bias(numpy.bincount(corpus.train, minlength=corpus.vocab_size))
    if run is None:  # what is wrong with an option has been said before there is a folder
        run = RunFolder.create(script, corpus.name, options)
    with StopSignals() as stop, run.locked():
        try:
            training = Training(run, options, corpus, model, stop)
            training.trainer = RnnlmTrainer(model, optimizer, rng=rng, on_nan=options.on_nan)
            training.trainer.schedule = lambda done: rate(done) / options.lr_decay**training.decays
            print(
                f"{type(model).__name__}, {training.num_params:,} parameters; {corpus.name}: "
                f"{len(corpus.train):,} training tokens, vocabulary {corpus.vocab_size:,}; "
                f"{run.path}"
            )
            if options.average == "ema":
                training.average()
            if options.resume is not None and not training.take_up(script):
                return
            training.go_on()
            stop.at_once = True  # from here on nothing is lost that cannot be done again
            training.report()
        except Stopped:
            print(f"to go on: {command_to_resume(script, run.path)}", flush=True)
            raise
        except DivergenceError as error:
            skip = f"{command_to_resume(script, run.path)} --on-nan skip"
            raise DivergenceError(
                f"{error}: start anew with another --lr or --max-grad, or leave such updates out, "
                f"{skip if run.checkpoint_file.exists() else '--on-nan skip'}"
            ) from error


class Training:
    """What a run has done so far, and how it goes on from any iteration.

    Args:
        run: its folder, locked.
        options: what was asked for.
        corpus: what is read.
        model: what is trained.
        stop: says when to stop.

    Attributes:
        trainer: does the iterations.
        best: the lowest validation perplexity so far; its weights are in the folder.
        valid_points: (iteration, validation perplexity) after each epoch.
        decays: how many validations were no improvement; the rate is divided after each.
    """

    trainer: RnnlmTrainer

    def __init__(
        self,
        run: RunFolder,
        options: LanguageModelOptions,
        corpus: Corpus,
        model: LanguageModel,
        stop: StopSignals,
    ) -> None:
        self.run, self.options, self.corpus, self.model = run, options, corpus, model
        self.stop = stop
        self.num_params = sum(param.size for param in model.params)
        self._corpus_id, self._version = _fingerprint(corpus), version("time-layers")
        self.best = math.inf
        self.valid_points: list[tuple[float, float]] = []
        self.decays = 0
        self._seconds, self._since = 0.0, time.perf_counter()
        self._saved_at = time.perf_counter()

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

    def _leave(self) -> None:
        """Write everything, say how far the run has come, and stop."""
        self.save()
        print(f"| stopped after iteration {self.trainer.iteration}, checkpoint written", flush=True)
        with self._averaged():
            print(f"| validation perplexity {self._valid_perplexity():.2f}", flush=True)
        self.stop.check()

    def _averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that count: their average, where there is one."""
        average = self.trainer.average
        return nullcontext() if average is None else average.applied()

    def _valid_perplexity(self) -> float:
        return eval_perplexity_exact(self.model, self.corpus.valid, self.corpus.first_id)

    def _validate_finished_epoch(self) -> None:
        """Where an epoch has ended: measure, keep the weights if they are the best so far."""
        trainer = self.trainer
        if len(self.valid_points) == trainer.epoch:
            return
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
        values = self._look_back()
        begin = self.options.average == "asgd" and trainer.average is None
        if begin and validation_got_worse(values, self.options.average_window):
            print("| from here on the weights are averaged", flush=True)
            self.average()
        self.save()
        self.stop.check()

    def _look_back(self) -> list[float]:
        """All validation perplexities; counts those that were no improvement."""
        values = [value for _, value in self.valid_points]
        self.decays = sum(value >= min(values[:k]) for k, value in enumerate(values) if k > 0)
        return values

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
            "options": fixed_options(self.options, self.options.changeable()),
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
        if checkpoint["trainer"].get("average") is not None:
            self.average()
        trainer.load_state_dict(checkpoint["trainer"])
        begun = trainer.epoch + (trainer.column > 0)
        if epochs < begun:
            raise ValueError(f"--epochs {epochs}: the run in {run.path} is in epoch {begun}")
        if read_results(run).get("epochs") == epochs == trainer.epoch:
            may_grow = "epochs" in self.options.changeable()
            more = "; more with a larger --epochs" if may_grow else ""
            print(f"{run.path} is finished: {epochs} epochs done{more}")
            return False
        run.results_file.unlink(missing_ok=True)  # they are of weights that will change
        self.best = float(checkpoint["best"])
        self.valid_points = [(step, valid) for step, valid in checkpoint["valid_points"]]
        self._look_back()
        self._seconds, self._since = float(checkpoint["seconds"]), time.perf_counter()
        run.take_up(checkpoint["log_length"])
        run.write_config(script, self.options)
        place = f"iteration {trainer.iteration}, {trainer.epoch} epochs done"
        print(f"goes on after {place}", flush=True)
        return True

    def _check(self, checkpoint: dict[str, Any]) -> None:
        """Raise ValueError where config or corpus have changed; note another version."""
        file, changeable = self.run.checkpoint_file, self.options.changeable()
        fixed = fixed_options(self.options, changeable)
        defaults = fixed_options(type(self.options)(), changeable)
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

    def report(self) -> None:
        """Measure the best weights, let them write, draw the curve; results.json comes last."""
        run, model, trainer, seconds = self.run, self.model, self.trainer, self.seconds()
        model.load_params(run.weights_file)
        results = {
            "parameters": self.num_params,
            "epochs": trainer.epoch,
            "seconds": seconds,
            "skipped": trainer.skipped,
            **evaluate(model, self.corpus),
        }
        if trainer.skipped:
            print(f"{trainer.skipped} of {trainer.iteration} updates skipped: they were not finite")
        print_sample(model, self.corpus, self.options.seed)
        trainer.plot(path=str(run.curve_file), valid=self.valid_points)
        run.write_json(run.results_file, results)
        print(f"run saved in {run.path} ({seconds:.0f} s of training)")


def evaluate(model: LanguageModel, corpus: Corpus) -> dict[str, float]:
    """Print and return valid and test perplexity by the exact and by the book's protocol.

    A split that is too short for one batch of the book's protocol has the exact one only.
    """
    results: dict[str, float] = {}
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


def _fingerprint(corpus: Corpus) -> str:
    """SHA-256 of what a run reads while it trains."""
    digest = hashlib.sha256(corpus.train.tobytes())
    digest.update(corpus.valid.tobytes())
    return digest.hexdigest()
