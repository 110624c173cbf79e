"""What the language-model scripts share: the way of a run, the final report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy

from common import config
from common.divergence import DivergenceError
from common.util import eval_perplexity, eval_perplexity_exact
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.options import LanguageModelOptions, changeable, check_length, check_options
from train.recipe import Recipe, build_optimizer
from train.resume import command_to_resume, options_to_resume
from train.run_folder import RunFolder
from train.stopping import Stopped, StopSignals
from train.training import Training

__all__ = ["LanguageModelOptions", "evaluate", "train"]


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
    check_options(options)
    options = replace(options, gpu=options.gpu or config.GPU)
    run = None
    if options.resume is not None:
        run, options = options_to_resume(script, options, changeable(options))
    build_optimizer(options)  # what is wrong with an option is said before there is a folder
    Recipe(options)
    corpus = options.load_corpus()
    check_length(options, corpus)
    rng = numpy.random.default_rng(options.seed)
    model = options.build(corpus.vocab_size, rng)
    if options.unigram_bias:
        model.set_output_bias(numpy.bincount(corpus.train, minlength=corpus.vocab_size))
    if run is None:
        run = RunFolder.create(f"{script}-{corpus.name}", options)
    with StopSignals() as stop, run.locked():
        try:
            training = Training(run, options, corpus, model, rng, stop)
            print(
                f"{type(model).__name__}, {training.num_params:,} parameters; {corpus.name}: "
                f"{len(corpus.train):,} training tokens, vocabulary {corpus.vocab_size:,}; "
                f"{run.path}"
            )
            if options.resume is not None and not training.take_up(script):
                return
            training.go_on()
            stop.at_once = True  # from here on nothing is lost that cannot be done again
            report(training)
        except Stopped:
            print(f"to go on: {command_to_resume(script, run.path)}", flush=True)
            raise
        except DivergenceError as error:
            skip = f"{command_to_resume(script, run.path)} --on-nan skip"
            raise DivergenceError(
                f"{error}: start anew with another --lr or --max-grad, or leave such updates out, "
                f"{skip if run.checkpoint_file.exists() else '--on-nan skip'}"
            ) from error


def report(training: Training) -> None:
    """Measure the best weights, let them write, draw the curve; results.json comes last."""
    run, model, options = training.run, training.model, training.options
    trainer, seconds = training.trainer, training.seconds()
    model.load_params(run.weights_file)
    results = {
        "parameters": training.num_params,
        "epochs": trainer.epoch,
        "seconds": seconds,
        "skipped": trainer.skipped,
        **evaluate(model, training.corpus),
    }
    if trainer.skipped:
        print(f"{trainer.skipped} of {trainer.iteration} updates skipped: they were not finite")
    print_sample(model, training.corpus, options.seed)
    trainer.plot(path=str(run.curve_file), valid=training.valid_points)
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
