"""The options that all language-model scripts share, and the check of counts among any options."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy

from common.optimizer import SGD, Adam, AdamW, Optimizer
from common.row_gradient import RowGradient
from common.schedules import schedule
from datasets import NAMES, load_corpus
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.folder import RunFolder
from train.run.tensorboard import require_tensorboard

__all__ = [
    "CellOptions",
    "LanguageModelOptions",
    "UntiedOptions",
    "check_counts",
    "token_counts",
]


def token_counts(corpus: Corpus) -> numpy.ndarray:
    """How often each id occurs in the training text (V,)."""
    return numpy.bincount(corpus.train, minlength=corpus.vocab_size)


def check_counts(options: Any, *names: str) -> None:
    """Raise ValueError for an option of ``names`` that is below 1; None is no count."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value >= 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected 1 or more, got {value}")


@dataclass(frozen=True)
class LanguageModelOptions(ABC):
    """Options of every language-model script; the defaults are the book's."""

    on_processes: ClassVar[bool] = True  # whether several processes can share the work
    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "corpus data_dir level max_vocab",
        "model": "wordvec_size hidden_size ...",
        "training": "epochs stop_after batch_size time_size optimizer lr lr_schedule warmup "
        "lr_decay weight_decay max_grad average average_window average_decay random_offset "
        "random_sizes unigram_bias",
        "run": "seed gpu out start_from resume checkpoint_every on_nan log_interval verbose "
        "tensorboard",
    }

    corpus: str = "pydoc"
    """pydoc (English prose that ships with Python), ptb (Penn Treebank), wikitext2, wikitext103,
    text8 (characters), enwik8 (bytes), markov (a random source of known entropy), or the path of
    your own text: a UTF-8 file, whose last lines become validation and test (5 % each), or a
    folder with a train, a valid and a test file. A file may be compressed with gzip."""
    data_dir: Path | None = None
    """For ptb: folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt; for wikitext2,
    wikitext103, text8 and enwik8: folder with their zip file, or with what it holds. By default
    $TIMELAYERS_DATA, else they are downloaded once."""
    level: Literal["word", "char"] = "word"
    """What a token of your own text is: a word (split on blanks, <eos> at the end of a line) or a
    char(acter)."""
    max_vocab: int | None = None
    """Keep this many of the commonest tokens of your own text or of pydoc, the rest are <unk>; by
    default 2,000 of pydoc, of your own text all."""
    wordvec_size: int = 100
    """Width D of the word vectors."""
    hidden_size: int = 100
    """Width H of the recurrent layers."""
    epochs: int = 4
    """How often the training text is read."""
    stop_after: int | None = None
    """Stop after so many epochs in a row without a better validation (early stopping); by default
    all epochs are done."""
    batch_size: int = 20
    """Parallel streams N."""
    time_size: int = 35
    """Steps T through which the gradient flows."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """The update rule. Adam and AdamW want a learning rate near 0.001."""
    lr: float = 20.0
    """Learning rate of plain SGD; large, because the loss is a mean over N T tokens and clipped."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """What becomes of the learning rate: cosine and linear reach 0 after all epochs."""
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
    """For asgd: averaging begins when a validation is worse than the best one that is older by more
    than this many validations."""
    average_decay: float = 0.999
    """For ema: the share of the average that each update keeps."""
    random_offset: bool = False
    """Begin each epoch with a window of random size, so that the later windows are others too."""
    random_sizes: bool = False
    """Let each window have a random size around --time-size."""
    unigram_bias: bool = False
    """Begin with the output biases at the frequencies of the tokens."""
    log_interval: int = 20
    """Iterations between lines of log.jsonl. On a terminal each takes the place of the one before;
    into a file or a pipe goes one for every tenth of an epoch, or every minute."""
    verbose: bool = False
    """Say which streams, cores and kernels each process works with, where mpiexec started several,
    and on a GPU what is done by which kernel."""
    tensorboard: bool = False
    """Write an event file into the folder of the run, for TensorBoard: loss, perplexity, learning
    rate, validation. Needs the extra of that name: pip install -e ".[tensorboard]"."""
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
    start_from: Path | None = None
    """Begin with the best weights of the run in this folder, output biases and all, and with its
    words (fine-tuning): words of the new text that it does not have become <unk>. By default the
    weights are drawn."""
    resume: Path | None = None
    """Go on with the run in this folder, as if it had never stopped, or with more --epochs if it
    is finished; by default a new run begins. Its options are taken from there; only --epochs
    (where the learning rate does not depend on it), --stop-after, --corpus and --data-dir (where
    the same text lies now), --checkpoint-every, --on-nan, --tensorboard and --verbose may
    change."""

    @abstractmethod
    def build(self, vocab_size: int, rng: numpy.random.Generator) -> LanguageModel:
        """The model that these options describe."""

    def new_model(self, corpus: Corpus, rng: numpy.random.Generator) -> LanguageModel:
        """The model that these options describe, for the words of ``corpus``."""
        model = self.build(corpus.vocab_size, rng)
        model.vocabulary_hash = corpus.vocabulary.hash()
        self.prepare(model, corpus)
        self._tell_what_is_lazy(model)
        return model

    def _tell_what_is_lazy(self, model: LanguageModel) -> None:
        """Print one line where the update rule leaves rows alone that it would else change."""
        rules = {"sgd": "weight decay" if self.weight_decay else "", "adam": "Adam"}
        rule = rules.get(self.optimizer, "AdamW")
        if rule and any(isinstance(grad, RowGradient) for grad in model.grads):
            print(f"of the embedding {rule} changes the rows that a window reads alone (--sparse)")

    def prepare(self, model: LanguageModel, corpus: Corpus) -> None:
        """Tell a new model what it has to know of its text."""
        if self.unigram_bias:
            model.set_output_bias(token_counts(corpus))

    def begin_epoch(self, model: LanguageModel, epochs_done: int) -> None:
        """Change what is another way in the epoch that begins; for most models nothing is."""
        return

    def with_whole_paths(self) -> Self:
        """The same with absolute paths, so that a run can be opened from another folder."""
        path = Path(os.path.expanduser(self.corpus))
        is_file = path.exists() and self.corpus not in NAMES
        data_dir, start_from = (
            None if folder is None else folder.expanduser().absolute()
            for folder in (self.data_dir, self.start_from)
        )
        corpus = str(path.absolute()) if is_file else self.corpus
        return replace(self, corpus=corpus, data_dir=data_dir, start_from=start_from)

    def load_corpus(self, run: RunFolder | None = None) -> Corpus:
        """The corpus that these options name.

        Args:
            run: The run of these options where there is one already. Its words are its own only
                where it has started from another; else the text has them.

        Raises:
            FileNotFoundError: where there is no text, or no run to start from.
            ValueError: see ``datasets.load_corpus``.
        """
        options: dict[str, Any] = {"level": self.level, "max_vocab": self.max_vocab}
        if self.start_from is not None:
            run = run or RunFolder.open(self.start_from)[0]
            options["vocabulary"] = run.read_vocabulary()
        return load_corpus(self.corpus, data_dir=self.data_dir, **options)

    def fitted_to(self, corpus: Corpus) -> Self:
        """The same with what depends on the text filled in; for most models nothing does.

        Raises:
            ValueError: for a corpus that does not fill one window of all streams.
        """
        needed = self.batch_size * self.time_size + 1
        if len(corpus.train) < needed:
            raise ValueError(
                f"{corpus.name}: expected at least {needed:,} training tokens for --batch-size "
                f"{self.batch_size} and --time-size {self.time_size}, got {len(corpus.train):,}"
            )
        return self

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

    def build_schedule(self) -> Callable[[float, int], float] | None:
        """The learning rate by epochs done and decays on a plateau; None if it stays.

        Raises:
            ValueError: for a number out of range.
        """
        if (self.lr_schedule, self.warmup, self.lr_decay) == ("constant", 0, 1):
            return None
        rate = schedule(self.lr_schedule, self.lr, self.epochs, self.warmup)
        return lambda epochs_done, decays: rate(epochs_done) / self.lr_decay**decays

    def windows(self) -> dict[str, Any]:
        """How the training text is read, clipped and reported, for ``RnnlmTrainer.iterations``."""
        names = ("batch_size", "time_size", "max_grad", "random_offset", "random_sizes")
        return {"eval_interval": self.log_interval} | {name: getattr(self, name) for name in names}

    def early_stop(self, valid: Sequence[float]) -> str:
        """What is said of a run that ends before all epochs are done; empty where none does.

        Args:
            valid: the validation perplexity after each epoch so far.
        """
        if self.stop_after is None or not 0 < len(valid) < self.epochs:
            return ""
        best = 1 + valid.index(min(valid))
        in_vain = len(valid) - best
        return f", stopped early: best after epoch {best}" if in_vain >= self.stop_after else ""

    def changeable(self) -> tuple[str, ...]:
        """Names of the options that may change when a run is resumed.

        Not the epochs where the schedule ends with them: with another number, the rates of the
        epochs already done would have been others.
        """
        always = ("stop_after", "corpus", "data_dir", "checkpoint_every", "on_nan")
        shown = ("tensorboard", "verbose")
        epochs = ("epochs",) if self.lr_schedule == "constant" else ()
        return (*epochs, *always, *shown)

    def check(self) -> None:
        """Raise ValueError for a number with which no run can work."""
        if self.tensorboard:
            require_tensorboard()
        check_counts(self, "wordvec_size", "hidden_size", "epochs", "batch_size", "time_size")
        check_counts(self, "stop_after", "lr_decay", "average_window", "log_interval")
        if self.start_from is not None and self.max_vocab is not None:
            raise ValueError("--max-vocab: with --start-from the words are those of that run")
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


@dataclass(frozen=True)
class CellOptions(LanguageModelOptions):
    """Options of the scripts whose models take any cell."""

    cell: str | None = None
    """The recurrent layer: lstm, gru, rnn, the name of a file in common/cells (such as
    mogrifier_lstm), or module:Class for your own; by default the model's."""


@dataclass(frozen=True)
class UntiedOptions(LanguageModelOptions):
    """Options of the scripts whose models may have an embedding that is tied to nothing."""

    sparse: Literal["auto", "yes", "no"] = "auto"
    """Keep the gradient of an embedding that is not tied as the rows that a window has read: an
    update takes the same time and memory for any vocabulary. Adam, AdamW and weight decay then
    change those rows alone. auto: where there are more than 16,384 words."""

    @property
    def sparse_gradient(self) -> bool | None:
        """What a model takes: yes, no, or None for its own choice."""
        return {"auto": None, "yes": True, "no": False}[self.sparse]
