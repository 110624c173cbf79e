"""The benchmarks, one subcommand each.

python -m train.benchmark speed
python -m train.benchmark speed --only "Rnnlm step" --repeats 5
python -m train.benchmark scaling
python -m train.benchmark perplexity runs/rnnlm-ptb-1
"""

from __future__ import annotations

from train.benchmark import perplexity, scaling, speed
from train.run.command import run_subcommands

if __name__ == "__main__":
    run_subcommands(
        {
            "speed": (speed.main, speed.Options),
            "scaling": (scaling.main, scaling.Options),
            "perplexity": (perplexity.main, perplexity.Options),
        }
    )
