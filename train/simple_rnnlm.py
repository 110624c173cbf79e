"""Train SimpleRnnlm: embedding, one tanh RNN, output layer.

python -m train.simple_rnnlm
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from models import SimpleRnnlm
from train.run.command import run_command
from train.run.language_model import train
from train.run.options import UntiedOptions


@dataclass(frozen=True)
class Options(UntiedOptions):
    """Train SimpleRnnlm (embedding, one tanh RNN, output layer): what gates are compared with."""

    lr: float = 5.0
    """Learning rate; at the 20 of the other scripts an RNN without gates diverges."""

    def build(self, vocab_size: int, rng: numpy.random.Generator) -> SimpleRnnlm:
        """The model that these options describe."""
        sizes = vocab_size, self.wordvec_size, self.hidden_size
        return SimpleRnnlm(*sizes, rng=rng, sparse=self.sparse_gradient)


def main(options: Options) -> None:
    """Run the command."""
    train("simple_rnnlm", options)


if __name__ == "__main__":
    run_command(main, Options)
