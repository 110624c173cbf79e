"""Train AwdRnnlm: LSTM layers with every regularization, tied weights.

python -m train.awd_rnnlm --corpus ptb --preset cpu10     # ten minutes on two cores
python -m train.awd_rnnlm --corpus ptb --preset full --gpu
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy

from common.time_layers import TimeSampledOutputWithLoss, cell_named
from datasets.corpus import Corpus
from models import AwdRnnlm
from models.language_model import LanguageModel
from train.run.command import run_command
from train.run.language_model import train
from train.run.options import CellOptions, token_counts

SHORT = {  # what helps where the text is read a few times only
    "num_layers": 1,
    "batch_size": 16,
    "time_size": 35,
    "sampled_classes": 1000,
    "forget_bias": 1.0,
    "lr": 20.0,
    "lr_schedule": "cosine",
    "lr_decay": 1.0,
    "average": "none",
    "random_offset": True,
    "unigram_bias": True,
    "random_sizes": False,
    "weight_decay": 0.0,
    "embed_dropout": 0.0,
    "hidden_dropout": 0.0,
    "weight_drop": 0.0,
    "alpha": 0.0,
    "beta": 0.0,
}


@dataclass(frozen=True)
class Options(CellOptions):
    """Train AwdRnnlm (Merity et al. 2018); a preset is a set of options for a budget of time."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "full": {},
        "cpu10": {
            **SHORT,
            "epochs": 7,
            "wordvec_size": 384,
            "hidden_size": 384,
            "input_dropout": 0.3,
            "output_dropout": 0.4,
        },
        "cpu60": {
            **SHORT,
            "epochs": 20,
            "wordvec_size": 640,
            "hidden_size": 640,
            "embed_dropout": 0.1,
            "input_dropout": 0.4,
            "output_dropout": 0.5,
            "weight_drop": 0.2,
        },
        "gpu30": {
            "gpu": True,
            "epochs": 120,
            "batch_size": 40,
            "lr_schedule": "cosine",
            "random_offset": True,
            "average": "ema",
        },
    }

    preset: Literal["cpu10", "cpu60", "gpu30", "full"] = "full"
    """Whose settings are the defaults of all other options: cpu10 and cpu60 are made for ten and
    sixty minutes on two cores, gpu30 for thirty on a large GPU, full is the published model."""
    wordvec_size: int = 400
    """Width D of the word vectors, of the last LSTM and of the tied weight."""
    hidden_size: int = 1150
    """Width H of the LSTMs before the last; of all of them with --projection."""
    num_layers: int = 3
    """How many LSTMs."""
    embed_dropout: float = 0.1
    """Probability of dropping a word of the vocabulary."""
    input_dropout: float = 0.4
    """Probability of dropping what the first LSTM reads."""
    hidden_dropout: float = 0.25
    """Probability of dropping between the LSTMs."""
    output_dropout: float = 0.4
    """Probability of dropping after the last LSTM."""
    weight_drop: float = 0.5
    """Probability of dropping an element of the LSTMs' Wh."""
    alpha: float = 2.0
    """Weight of the penalty on large activations."""
    beta: float = 1.0
    """Weight of the penalty on activations that change from step to step."""
    projection: bool = False
    """Let an affine layer take the last LSTM from H down to D."""
    forget_bias: float = 0.0
    """Where the biases of the forget gates begin."""
    sampled_classes: int = 0
    """Train with a softmax over so many words in the mean, drawn anew for each window, in place of
    the whole vocabulary; 0 for the whole. What is measured is always measured with the whole."""
    whole_epochs: int = 1
    """Train the last epochs with the whole softmax, where the others sample."""
    epochs: int = 500
    """How often the training text is read."""
    time_size: int = 70
    """Steps T through which the gradient flows, in the mean."""
    lr: float = 30.0
    """Learning rate of plain SGD; large, because the loss is a mean over N T tokens and clipped."""
    weight_decay: float = 1.2e-6
    """Draw all weights towards 0 by the learning rate times this."""
    average: Literal["none", "asgd", "ema"] = "asgd"
    """Validate and keep an average of the weights: asgd, all since validation stopped improving;
    ema, an exponential one."""
    random_sizes: bool = True
    """Let each window have a random size around --time-size."""

    def check(self) -> None:
        """Raise ValueError for options with which no run can work, or one that does nothing."""
        super().check()
        if self.num_layers == 1 and self.hidden_dropout:
            raise ValueError(
                f"--hidden-dropout: {self.hidden_dropout} is between LSTMs, and there is only one; "
                "expected 0 with --num-layers 1"
            )
        for name in ("sampled_classes", "whole_epochs"):
            if getattr(self, name) < 0:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag}: expected 0 or more, got {getattr(self, name)}")
        gates = getattr(cell_named(self.cell or "lstm"), "gates", "")
        if self.forget_bias and "f" not in gates:
            raise ValueError(
                f"--forget-bias: {self.forget_bias}, and cell {self.cell} has no forget gate; "
                "expected 0 with it, whatever the preset says"
            )

    def build(self, vocab_size: int, rng: numpy.random.Generator) -> AwdRnnlm:
        """The model that these options describe."""
        return AwdRnnlm(
            vocab_size,
            self.wordvec_size,
            self.hidden_size,
            self.num_layers,
            embed_dropout=self.embed_dropout,
            input_dropout=self.input_dropout,
            hidden_dropout=self.hidden_dropout,
            output_dropout=self.output_dropout,
            weight_drop=self.weight_drop,
            alpha=self.alpha,
            beta=self.beta,
            projection=self.projection,
            forget_bias=self.forget_bias,
            sampled_classes=self.sampled_classes,
            rng=rng,
            cell=self.cell,
        )

    def prepare(self, model: LanguageModel, corpus: Corpus) -> None:
        """Tell a new model how frequent the words are."""
        super().prepare(model, corpus)
        if isinstance(model.loss_layer, TimeSampledOutputWithLoss):
            model.loss_layer.set_counts(token_counts(corpus))

    def begin_epoch(self, model: LanguageModel, epochs_done: int) -> None:
        """Sample the words of the softmax, but not in the last epochs."""
        if isinstance(model.loss_layer, TimeSampledOutputWithLoss):
            model.loss_layer.sampling = epochs_done < self.epochs - self.whole_epochs

    def changeable(self) -> tuple[str, ...]:
        """As for every run; the number of epochs is fixed where the last ones do not sample."""
        names = super().changeable()
        fixed = self.sampled_classes and self.whole_epochs
        return tuple(name for name in names if not (fixed and name == "epochs"))


def main(options: Options) -> None:
    """Run the command."""
    train("awd_rnnlm", options)


if __name__ == "__main__":
    run_command(main, Options)
