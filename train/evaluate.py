"""Measure a trained model again.

python -m train.evaluate runs/rnnlm-ptb-1
"""

from __future__ import annotations

from dataclasses import dataclass

from common import kernels
from train.run.command import run_command
from train.run.folder import require_finite
from train.run.language_model import evaluate
from train.run.saved_run import SavedRunOptions, open_run


@dataclass(frozen=True)
class Options(SavedRunOptions):
    """Print valid and test perplexity of a run, by the exact and by the book's protocol."""


def main(options: Options) -> None:
    """Run the command."""
    model, corpus = open_run(options.run, options.corpus, options.data_dir)
    kernels.print_notice()
    print(corpus.about)
    require_finite(options.run, evaluate(model, corpus))


if __name__ == "__main__":
    run_command(main, Options)
