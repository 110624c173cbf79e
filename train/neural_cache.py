"""Measure a trained model with a cache of the words that it has just read.

python -m train.neural_cache runs/rnnlm-ptb-1
python -m train.neural_cache runs/rnnlm-ptb-1 --tune
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from common import kernels
from common.perplexity.neural_cache import (
    cache_probabilities,
    eval_perplexity_cache,
    mixed_perplexity,
)
from common.plotting import progress, say
from datasets.corpus import Corpus
from models.language_model import LanguageModel
from train.run.command import run_command
from train.run.folder import add_result, require_finished
from train.run.saved_run import SavedRunOptions, open_run

NAME = "neural_cache"
CACHE_SIZES = (100, 500, 2000)
THETAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
WEIGHTS = (0.05, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class Options(SavedRunOptions):
    """Perplexity with a neural cache (Grave et al. 2017): words that came lately, after a state
    like the present one, get more probability. Prints validation and test, and keeps them in the
    run's results.json under a name of their own."""

    tune: bool = False
    """Try a grid of settings on the validation text and take the best, in place of --cache-size,
    --theta and --weight."""
    cache_size: int = 500
    """How many of the last words are remembered."""
    theta: float = 0.5
    """0 weighs all of them alike; more prefers those that came after similar states."""
    weight: float = 0.15
    """Share of the cache in the mixture, from 0 to below 1."""


def tuned(model: LanguageModel, corpus: Corpus, options: Options) -> Options:
    """``options`` with the settings that do best on the validation text."""
    bits_beside = corpus.vocabulary.bits_beside
    tried: list[tuple[float, Options]] = []
    for cache_size in progress(CACHE_SIZES, unit=" sizes", desc="cache sizes"):
        log_p, p_cache = cache_probabilities(
            model, corpus.valid, corpus.first_id, cache_size, THETAS
        )
        for theta, row in zip(THETAS, p_cache, strict=True):
            best, setting = min(
                (
                    (
                        mixed_perplexity(log_p, row, weight),
                        replace(options, cache_size=cache_size, theta=theta, weight=weight),
                    )
                    for weight in WEIGHTS
                ),
                key=lambda pair: pair[0],
            )
            say(
                f"| cache size {cache_size} | theta {theta:g} | best weight {setting.weight:g} "
                f"| validation perplexity {best:.2f}{bits_beside(best)}"
            )
            tried.append((best, setting))
    _, chosen = min(tried, key=lambda pair: pair[0])
    print(
        f"best on the validation text: --cache-size {chosen.cache_size} --theta {chosen.theta:g} "
        f"--weight {chosen.weight:g}",
        flush=True,
    )
    return chosen


def main(options: Options) -> None:
    """Run the command."""
    for name, most in (("theta", float("inf")), ("weight", 1.0)):
        if not 0 <= getattr(options, name) < most:
            raise ValueError(
                f"--{name}: expected 0 to below {most:g}, got {getattr(options, name)}"
            )
    measured = require_finished(options.run)
    model, corpus = open_run(options.run, options.corpus, options.data_dir)
    kernels.print_notice()
    print(corpus.about)
    start = time.perf_counter()
    if options.tune:
        options = tuned(model, corpus, options)
    settings = {name: getattr(options, name) for name in ("cache_size", "theta", "weight")}
    figures: dict[str, float] = {}
    for split, tokens in (("valid", corpus.valid), ("test", corpus.test)):
        value = eval_perplexity_cache(model, tokens, corpus.first_id, **settings)
        bits = corpus.vocabulary.bits_beside(value)
        print(f"{split:<6} {value:8.2f} with the neural cache{bits}", flush=True)
        figures[split] = value
    figures |= corpus.vocabulary.in_bits(figures)
    seconds = time.perf_counter() - start
    add_result(options.run, NAME, {**figures, "settings": settings, "seconds": seconds}, measured)


if __name__ == "__main__":
    run_command(main, Options)
