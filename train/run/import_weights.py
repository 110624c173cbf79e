"""A run folder made of weights that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy
import tyro

from common.np import Array
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.folder import RunFolder
from train.run.language_model import evaluate
from train.run.saved_run import options_of


@dataclass(frozen=True)
class ImportOptions:
    """Options of every script that takes weights in."""

    file: tyro.conf.Positional[Path]
    """File with the weights."""
    model: Literal["rnnlm", "simple_rnnlm", "better_rnnlm"]
    """The script that makes such a model; its sizes are read from the weights."""
    corpus: str = "ptb"
    """The text with whose vocabulary it was trained: pydoc, ptb, markov, or the path of a file or a
    folder of text files."""
    data_dir: Path | None = None
    """Folder with the files of ptb, if $TIMELAYERS_DATA does not name it."""
    level: Literal["word", "char"] = "word"
    """How your own text file is cut into tokens."""
    max_vocab: int | None = None
    """How many of the commonest tokens of your own text file were kept; by default all."""
    gpu: bool = False
    """Compute on the GPU."""
    out: Path | None = None
    """Folder of the run; runs/MODEL-imported-NUMBER if not named."""


def keep_as_run(
    options: ImportOptions,
    sizes: tuple[int, int, int],
    num_values: int,
    convert: Callable[[LanguageModel], Mapping[str, Array]],
    words: str = "",
) -> RunFolder:
    """Build the model, fill it, write the run folder, and measure where the corpus is there.

    Nothing is written before the weights fit the model and the corpus.

    Args:
        options: what the user asked for.
        sizes: V, D and H of the weights.
        num_values: how many values the weights have together.
        convert: the weights under the names of the model that it is given.
        words: the hash of the vocabulary of the weights, where it is known.

    Raises:
        ValueError: where the weights do not fit the model or the vocabulary of the corpus.
        FileExistsError: where the folder holds a run already.
        RuntimeError: where a perplexity is not finite; the run is written.
    """
    V, D, H = sizes
    if max(V, H) * max(D, H) > num_values:  # before a model of that size takes memory
        raise ValueError(
            f"{options.file}: {num_values:,} values are too few for a model of V {V:,}, D {D:,} "
            f"and H {H:,}"
        )
    script_options = options_of(options.model)(
        corpus=options.corpus,
        data_dir=options.data_dir,
        level=options.level,
        max_vocab=options.max_vocab,
        wordvec_size=D,
        hidden_size=H,
        out=options.out,
    )
    script_options = script_options.with_whole_paths()
    model = script_options.build(V, numpy.random.default_rng(script_options.seed))
    model.fill_params(convert(model), options.file)
    try:
        corpus: Corpus | None = script_options.load_corpus()
    except (FileNotFoundError, RuntimeError) as error:
        if options.corpus != "ptb":  # only ptb may have to be downloaded
            raise
        corpus = None
        print(f"note: perplexity is not measured, because the corpus is not there: {error}")
    if corpus is not None and corpus.vocab_size != V:
        raise ValueError(
            f"{options.file}: the weights have {V} words, corpus {corpus.name} has "
            f"{corpus.vocab_size}; name the corpus of the weights with --corpus"
        )
    if corpus is not None and words and corpus.vocabulary.hash() != words:
        raise ValueError(
            f"{options.file}: the weights belong to other words than those of {corpus.name}; name "
            "the corpus of the weights with --corpus"
        )
    run = RunFolder.create(options.model, "imported", script_options, corpus)
    model.vocabulary_hash = words if corpus is None else corpus.vocabulary.hash()
    model.save_params(run.weights_file)
    num_params = sum(param.size for param in model.params)
    print(f"{type(model).__name__}, {num_params:,} parameters (V {V:,}, D {D}, H {H}); {run.path}")
    if corpus is not None:
        print(corpus.about, flush=True)
        run.write_results({"parameters": num_params, **evaluate(model, corpus)})
    return run
