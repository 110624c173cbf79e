"""Measure a trained model that goes on learning from the text on which it is measured.

python -m train.dynamic_evaluation runs/rnnlm-ptb-1
python -m train.dynamic_evaluation runs/rnnlm-ptb-1 --tune
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from common import kernels
from common.np import Array
from common.perplexity.dynamic_evaluation import eval_perplexity_dynamic, gradient_scales
from common.plotting import progress, say
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.command import run_command
from train.run.folder import add_result, require_finished
from train.run.options import check_counts
from train.run.saved_run import SavedRunOptions, open_run

NAME = "dynamic_evaluation"
LEARNING_RATES = {"rms": (1e-4, 2e-4, 4e-4), "sgd": (0.1, 0.2, 0.4)}
DECAYS = (0.0, 1e-3, 5e-3)
MOST_ROWS = 8  # by which a grid may grow: another factor of 256 in the rate


@dataclass(frozen=True)
class Options(SavedRunOptions):
    """Perplexity by dynamic evaluation (Krause et al. 2018): after each segment, which is scored
    first, the weights take a step along its gradient. Prints validation and test, and keeps them in
    the run's results.json under a name of their own."""

    GROUPS: ClassVar[dict[str, str]] = {
        "corpus": "corpus data_dir",
        "training": "rule lr decay epsilon time_size statistics_batch statistics_windows",
        "run": "run tune tune_tokens gpu",
    }

    tune: bool = False
    """Try three learning rates with three decays on the validation text, and more while the best
    lies at the edge of what was tried; take the best, in place of --lr and --decay."""
    tune_tokens: int = 20_000
    """How much of the validation text --tune reads for each setting."""
    rule: Literal["rms", "sgd"] = "rms"
    """rms divides each gradient by its usual size on the training text; sgd does not."""
    lr: float | None = None
    """Learning rate; 2e-4 for rms and 0.2 for sgd if not given."""
    decay: float = 1e-3
    """How far each step draws the weights back to the trained ones, in 0..1."""
    epsilon: float = 1e-4
    """Added to the usual size of a gradient, for rms."""
    time_size: int = 5
    """Tokens per segment; 20 suits characters."""
    statistics_batch: int = 100
    """Parallel streams in which the training text is read to learn the usual size of gradients."""
    statistics_windows: int = 500
    """Windows of the training text that are read for it."""


def check_options(options: Options) -> None:
    """Raise ValueError for what cannot work, before the corpus is read."""
    check_counts(options, "tune_tokens", "time_size", "statistics_batch", "statistics_windows")
    if not 0 <= options.decay <= 1:
        raise ValueError(f"--decay: expected 0 to 1, got {options.decay}")
    if options.lr is not None and not 0 <= options.lr < math.inf:
        raise ValueError(f"--lr: expected 0 or more, got {options.lr}")
    if not 0 < options.epsilon < math.inf:
        raise ValueError(f"--epsilon: expected a number above 0, got {options.epsilon}")


def measure(
    model: LanguageModel,
    tokens: Array,
    first_id: int,
    options: Options,
    scales: list[Array] | None,
) -> float:
    """Perplexity of ``tokens`` with the settings of ``options``."""
    assert options.lr is not None
    return eval_perplexity_dynamic(
        model,
        tokens,
        first_id,
        lr=options.lr,
        decay=options.decay,
        time_size=options.time_size,
        scales=scales,
        epsilon=options.epsilon,
    )


def tuned(
    model: LanguageModel, corpus: Corpus, options: Options, scales: list[Array] | None
) -> Options:
    """``options`` with the learning rate and the decay that do best on the validation text.

    The grid grows by a row of settings while the best one lies at its edge.
    """
    tokens = corpus.valid[: options.tune_tokens]
    lrs, decays = list(LEARNING_RATES[options.rule]), list(DECAYS)
    perplexities: dict[tuple[float, float], float] = {}
    for _ in range(1 + MOST_ROWS):
        new = [pair for pair in itertools.product(lrs, decays) if pair not in perplexities]
        for lr, decay in progress(new, unit=" settings", desc="settings"):
            setting = replace(options, lr=lr, decay=decay)
            perplexity = measure(model, tokens, corpus.first_id, setting, scales)
            bits = corpus.vocabulary.bits_beside(perplexity)
            say(f"| lr {lr:g} | decay {decay:g} | validation perplexity {perplexity:.2f}{bits}")
            perplexities[lr, decay] = perplexity
        lr, decay = min(perplexities, key=lambda pair: _rank(perplexities[pair]))
        if lr == lrs[0]:
            lrs.insert(0, lr / 2)
        elif lr == lrs[-1]:
            lrs.append(2 * lr)
        elif decay == decays[-1]:
            decays.append(4 * decay)
        else:
            break
    print(
        f"best on {len(tokens):,} tokens of the validation text: --lr {lr:g} --decay {decay:g}",
        flush=True,
    )
    return replace(options, lr=lr, decay=decay)


def _rank(perplexity: float) -> tuple[bool, float]:
    """What is not a number comes last."""
    return math.isnan(perplexity), perplexity


def main(options: Options) -> None:
    """Run the command."""
    check_options(options)
    measured = require_finished(options.run)
    model, corpus = open_run(options.run, options.corpus, options.data_dir)
    kernels.print_notice()
    print(corpus.about)
    if options.lr is None:
        options = replace(options, lr=LEARNING_RATES[options.rule][1])
    start = time.perf_counter()
    scales = None
    if options.rule == "rms":
        rows = min(options.statistics_batch, len(corpus.train) - 1)
        options = replace(options, statistics_batch=rows)
        scales = gradient_scales(
            model,
            corpus.train,
            rows,
            options.time_size,
            options.statistics_windows,
        )
    if options.tune:
        options = tuned(model, corpus, options, scales)
    figures: dict[str, float] = {}
    for split, tokens in (("valid", corpus.valid), ("test", corpus.test)):
        value = measure(model, tokens, corpus.first_id, options, scales)
        bits = corpus.vocabulary.bits_beside(value)
        print(f"{split:<6} {value:8.2f} by dynamic evaluation{bits}", flush=True)
        figures[split] = value
    figures |= corpus.vocabulary.in_bits(figures)
    names = ["rule", "lr", "decay", "time_size"]
    if scales is not None:
        names += ["epsilon", "statistics_batch", "statistics_windows"]
    settings = {name: getattr(options, name) for name in names}
    seconds = time.perf_counter() - start
    add_result(options.run, NAME, {**figures, "settings": settings, "seconds": seconds}, measured)


if __name__ == "__main__":
    run_command(main, Options)
