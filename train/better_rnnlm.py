"""Train BetterRnnlm: two LSTM layers, dropout, tied weights.

python -m train.better_rnnlm --corpus ptb --epochs 1
python -m train.better_rnnlm --corpus ptb --gpu
python -m train.better_rnnlm --corpus ptb --output adaptive --cutoffs 2000,5000
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from models import BetterRnnlm
from train.run.command import run_command
from train.run.language_model import train
from train.run.options import UntiedOptions
from train.run.output_options import OutputOptions


@dataclass(frozen=True)
class Options(OutputOptions, UntiedOptions):
    """Train BetterRnnlm (two LSTM layers, dropout, tied weights); on a plateau lr / 4."""

    wordvec_size: int = 650
    """Width D of the word vectors; equals H, because the weight is tied."""
    hidden_size: int = 650
    """Width H of the recurrent layers."""
    dropout: float = 0.5
    """Probability of dropping, between all layers."""
    epochs: int = 40
    """How often the training text is read."""
    lr_decay: float = 4.0
    """Divide the learning rate by this when validation did not improve, on top of --lr-schedule; 1
    keeps it."""
    num_layers: int = 2
    """Recurrent layers on top of each other."""
    tied: bool = True
    """Let embedding and output layer share one weight."""

    def check(self) -> None:
        """Raise ValueError for options with which no run can work, or one that does nothing."""
        super().check()
        if self.tied and self.sparse == "yes":
            raise ValueError(
                "--sparse: the output layer has a gradient for every row of a tied weight; "
                "expected --no-tied with it"
            )

    def build(self, vocab_size: int, rng: numpy.random.Generator) -> BetterRnnlm:
        """The model that these options describe."""
        return BetterRnnlm(
            vocab_size,
            self.wordvec_size,
            self.hidden_size,
            self.dropout,
            rng=rng,
            cell=self.cell,
            num_layers=self.num_layers,
            tied=self.tied,
            sparse=self.sparse_gradient,
            cutoffs=self.cutoffs_to_build(),
        )


def main(options: Options) -> None:
    """Run the command."""
    train("better_rnnlm", options)


if __name__ == "__main__":
    run_command(main, Options)
