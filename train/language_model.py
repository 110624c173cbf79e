"""What the language-model scripts share: their options, the run over epochs, the final report."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy

from common.optimizer import SGD
from common.trainer import Record, RnnlmTrainer, print_record
from common.util import eval_perplexity, eval_perplexity_exact
from datasets import load_corpus
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run_folder import RunFolder


@dataclass(frozen=True)
class LanguageModelOptions:
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
    lr: float = 20.0
    """Learning rate of plain SGD; large, because the loss is a mean over N T tokens and clipped."""
    lr_decay: float = 1.0
    """Divide the learning rate by this when validation did not improve; 1 keeps it."""
    max_grad: float = 0.25
    """Bound of the global norm of all gradients."""
    log_interval: int = 20
    """Iterations between status lines."""
    seed: int = 1
    """Decides the initial weights and the dropout masks."""
    gpu: bool = False
    """Train with CuPy on the GPU (GPU=1 does the same)."""
    out: Path | None = None
    """Folder of the run; runs/SCRIPT-CORPUS-NUMBER if not named."""

    @abstractmethod
    def build(self, vocab_size: int, rng: numpy.random.Generator) -> LanguageModel:
        """The model that these options describe."""

    def load_corpus(self) -> Corpus:
        """The corpus that these options name."""
        return load_corpus(
            self.corpus, data_dir=self.data_dir, level=self.level, max_vocab=self.max_vocab
        )


def check_options(options: LanguageModelOptions) -> None:
    """Raise ValueError for a number with which no run can work."""
    for name in ("epochs", "batch_size", "time_size", "log_interval", "lr_decay"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag}: expected 1 or more, got {getattr(options, name)}")


def train(script: str, options: LanguageModelOptions) -> None:
    """Train, validate after each epoch, keep the best weights, report."""
    check_options(options)
    corpus = options.load_corpus()
    rng = numpy.random.default_rng(options.seed)
    model = options.build(corpus.vocab_size, rng)
    run = RunFolder.create(f"{script}-{corpus.name}", options)
    num_params = sum(param.size for param in model.params)
    print(
        f"{type(model).__name__}, {num_params:,} parameters; {corpus.name}: "
        f"{len(corpus.train):,} training tokens, vocabulary {corpus.vocab_size:,}; {run.path}"
    )

    def on_record(record: Record) -> None:
        print_record(record)
        run.log(record)

    optimizer = SGD(options.lr)
    trainer = RnnlmTrainer(model, optimizer, on_record)
    best = math.inf
    valid_points: list[tuple[float, float]] = []
    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        trainer.fit(
            corpus.train[:-1],
            corpus.train[1:],
            max_epoch=1,
            batch_size=options.batch_size,
            time_size=options.time_size,
            max_grad=options.max_grad,
            eval_interval=options.log_interval,
        )
        valid = eval_perplexity_exact(model, corpus.valid, corpus.first_id)
        valid_points.append((trainer.iteration, valid))
        seconds = time.perf_counter() - start
        print(f"| epoch {epoch} | {seconds:.0f} s | validation perplexity {valid:.2f}", flush=True)
        run.log({"epoch": epoch, "step": trainer.iteration, "valid": valid, "seconds": seconds})
        if valid < best:
            best = valid
            model.save_params(run.weights_file)
        else:
            optimizer.lr /= options.lr_decay

    seconds = time.perf_counter() - start
    model.load_params(run.weights_file)
    results = {"parameters": num_params, "seconds": seconds, **evaluate(model, corpus)}
    run.write_json(run.results_file, results)
    print_sample(model, corpus, options.seed)
    trainer.plot(path=str(run.curve_file), valid=valid_points)
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
