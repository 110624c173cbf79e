"""Train Rnnlm: embedding, one LSTM, output layer.

python -m train.rnnlm                 # on text that ships with Python
python -m train.rnnlm --corpus ptb    # on the Penn Treebank, with the book's settings
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from models import Rnnlm
from train.run.command import run_command
from train.run.language_model import train
from train.run.options import CellOptions, UntiedOptions


@dataclass(frozen=True)
class Options(CellOptions, UntiedOptions):
    """Train Rnnlm (embedding, one LSTM, output layer) and report perplexity, sample and curve."""

    num_layers: int = 1
    """Recurrent layers on top of each other."""

    def build(self, vocab_size: int, rng: numpy.random.Generator) -> Rnnlm:
        """The model that these options describe."""
        sizes = vocab_size, self.wordvec_size, self.hidden_size
        return Rnnlm(
            *sizes, rng=rng, cell=self.cell, num_layers=self.num_layers, sparse=self.sparse_gradient
        )


def main(options: Options) -> None:
    """Run the command."""
    train("rnnlm", options)


if __name__ == "__main__":
    run_command(main, Options)
