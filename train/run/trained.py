"""Open a run again: its options, its corpus, its model with the trained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy

from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train import awd_rnnlm, better_rnnlm, rnnlm, simple_rnnlm
from train.run.folder import RunFolder
from train.run.language_model import LanguageModelOptions
from train.run.saved_options import read_options

SCRIPTS = {
    "rnnlm": rnnlm,
    "simple_rnnlm": simple_rnnlm,
    "better_rnnlm": better_rnnlm,
    "awd_rnnlm": awd_rnnlm,
}


def open_run(path: Path, data_dir: Path | None = None) -> tuple[LanguageModel, Corpus]:
    """The trained model of a run folder and its corpus.

    Args:
        path: the folder.
        data_dir: where the corpus lies now, if not where it lay then.

    Raises:
        FileNotFoundError: where there is no run, no weights, or no corpus.
        ValueError: where the config or the weights are damaged, or do not fit the corpus.
    """
    run, config = RunFolder.open(path)
    if config["script"] not in SCRIPTS:
        raise ValueError(
            f"{path}: a run of {config['script']!r}; expected one of {', '.join(SCRIPTS)}"
        )
    options: LanguageModelOptions = read_options(
        SCRIPTS[config["script"]].Options, config, run.config_file
    )
    if data_dir is not None:
        options = replace(options, data_dir=data_dir)
    corpus = options.load_corpus()
    model = options.build(corpus.vocab_size, numpy.random.default_rng(options.seed))
    if not run.weights_file.exists():
        raise FileNotFoundError(f"{path} has no weights yet: its first epoch has not ended")
    model.load_params(run.weights_file)
    return model, corpus
