"""Open a run again: its options, its corpus, its model with the trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy

from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train import better_rnnlm, rnnlm, simple_rnnlm
from train.run_folder import RunFolder

SCRIPTS = {"rnnlm": rnnlm, "simple_rnnlm": simple_rnnlm, "better_rnnlm": better_rnnlm}


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
    options = dict(config["options"])
    if data_dir is not None:
        options["data_dir"] = str(data_dir)
    for name in ("data_dir", "out"):
        options[name] = None if options[name] is None else Path(options[name])
    try:
        parsed = SCRIPTS[config["script"]].Options(**options)
    except TypeError as error:
        raise ValueError(f"{run.config_file}: {error}") from error
    corpus = parsed.load_corpus()
    model = parsed.build(corpus.vocab_size, numpy.random.default_rng(parsed.seed))
    model.load_params(run.weights_file)
    return model, corpus
