"""Open a run again: its words, its model with the trained weights, and its text.

A run folder holds the words in the order of their ids, so that writing needs nothing else. What is
measured is measured on the text of the run: where that text, or its words, are other ones now, no
number is printed.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import tyro

from datasets.corpus import Corpus
from datasets.vocabulary import Vocabulary
from models.language_model import LanguageModel
from train.run.folder import RunFolder
from train.run.options import LanguageModelOptions
from train.run.saved_options import read_options

__all__ = ["SCRIPTS", "SavedRunOptions", "open_model", "open_run", "options_of", "start_from"]

SCRIPTS = ("rnnlm", "simple_rnnlm", "better_rnnlm", "awd_rnnlm")


@dataclass(frozen=True)
class SavedRunOptions:
    """Options of every script that measures a run on its text."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    corpus: str | None = None
    """Where the text of the run lies now, if not where it lay when the model was trained."""
    data_dir: Path | None = None
    """Where the files of ptb lie, if not where they lay when the model was trained."""
    gpu: bool = False
    """Compute on the GPU."""


def options_of(script: str) -> type[LanguageModelOptions]:
    """The options of a script of ``SCRIPTS``, by its name: what runs share knows no script."""
    return importlib.import_module(f"train.{script}").Options


def open_model(path: Path) -> tuple[LanguageModel, Vocabulary]:
    """The trained model of a run folder and its words; no text is read.

    Raises:
        FileNotFoundError: where there is no run, no weights or, of an older version, no words.
        ValueError: where the config, the words or the weights are damaged, or do not fit each
            other.
    """
    run, _, options = _read(path)
    return _model(run, options, run.read_vocabulary())


def open_run(
    path: Path, corpus: str | None = None, data_dir: Path | None = None
) -> tuple[LanguageModel, Corpus]:
    """The trained model of a run folder and its text, described as it was when the run began.

    Args:
        path: the folder.
        corpus: where the same text lies now, if not where it lay then.
        data_dir: where the files of ptb lie now, likewise.

    Raises:
        FileNotFoundError: where there is no run, no weights, or no text.
        ValueError: where the config or the weights are damaged, or the text is not that of the run.
    """
    run, config, options = _read(path)
    try:
        text = replace(
            options, corpus=corpus or options.corpus, data_dir=data_dir or options.data_dir
        ).load_corpus(run)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(
            f"{error}; name the text of {path} with --corpus or --data-dir"
        ) from error
    vocabulary = text.vocabulary
    if "corpus" in config or run.vocabulary_file.exists():
        run.expect_text(config, text)
        text = replace(text, about=config["corpus"]["about"])
        if run.vocabulary_file.exists():
            vocabulary = run.read_vocabulary()
    else:
        print(
            f"note: {path} was made by a version before words were kept; whether {text.name} has "
            "the words of then is not known",
            file=sys.stderr,
        )
    model, _ = _model(run, options, vocabulary)
    return model, text


def start_from(path: Path, model: LanguageModel, run: RunFolder | None) -> None:
    """Let a model begin with the best weights of another run.

    Args:
        path: the folder of the other run.
        model: with the words of that run.
        run: the run that is taken up again; None for a new one. Where it has a checkpoint nothing
            is to be done.

    Raises:
        FileNotFoundError: where there are no weights.
        ValueError: where words, names or shapes differ (lists each), or the weights are no longer
            those with which ``run`` began.
    """
    if run is not None and run.checkpoint_file.exists():
        return
    other = RunFolder(path)
    weights = other.weights_hash()
    if run is not None and run.started_from().get("weights") != weights:
        raise ValueError(f"--start-from {path}: its weights have changed since {run.path} began")
    try:
        model.load_params(other.weights_file)
    except ValueError as error:
        raise ValueError(f"--start-from {path}: {error}") from error
    print(f"starts from the best weights of {path}", flush=True)


def _read(path: Path) -> tuple[RunFolder, dict[str, Any], LanguageModelOptions]:
    run, config = RunFolder.open(path)
    if config["script"] not in SCRIPTS:
        raise ValueError(
            f"{path}: a run of {config['script']!r}; expected one of {', '.join(SCRIPTS)}"
        )
    return run, config, read_options(options_of(config["script"]), config, run.config_file)


def _model(
    run: RunFolder, options: LanguageModelOptions, vocabulary: Vocabulary
) -> tuple[LanguageModel, Vocabulary]:
    weights = run.best_weights()
    model = options.build(vocabulary.vocab_size, numpy.random.default_rng(options.seed))
    model.vocabulary_hash = vocabulary.hash()
    model.load_params(weights)
    return model, vocabulary
