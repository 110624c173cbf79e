"""Open a run again: its words, its model with the trained weights, and its text.

A run folder holds the words in the order of their ids, so that writing needs nothing else. What is
measured is measured on the text of the run: where that text, or its words, are other ones now, no
number is printed.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy

from datasets.corpus import Corpus
from datasets.vocabulary import Vocabulary
from models.language_model import LanguageModel
from train.run.folder import RunFolder
from train.run.options import LanguageModelOptions
from train.run.saved_options import read_options

__all__ = ["SCRIPTS", "open_model", "open_run", "options_of"]

SCRIPTS = ("rnnlm", "simple_rnnlm", "better_rnnlm", "awd_rnnlm")


def options_of(script: str) -> type[LanguageModelOptions]:
    """The options of a script of ``SCRIPTS``, by its name: what runs share knows no script."""
    return importlib.import_module(f"train.{script}").Options


def open_model(path: Path) -> tuple[LanguageModel, Vocabulary]:
    """The trained model of a run folder and its words; no text is read.

    Raises:
        FileNotFoundError: where there is no run or no weights.
        ValueError: where the config, the words or the weights are damaged, or do not fit each
            other; where the run is by a version that kept no words.
    """
    run, _, options = _read(path)
    if not run.vocabulary_file.exists():
        raise ValueError(
            f"{path} has no {run.vocabulary_file.name}: it was made by a version before words were "
            "kept, or of weights whose text was not there; train.evaluate opens it"
        )
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
        ).load_corpus()
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
    if not run.weights_file.exists():
        raise FileNotFoundError(f"{run.path} has no weights yet: its first epoch has not ended")
    model = options.build(vocabulary.vocab_size, numpy.random.default_rng(options.seed))
    model.vocabulary_hash = vocabulary.hash()
    model.load_params(run.weights_file)
    return model, vocabulary
