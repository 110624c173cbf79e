"""The measurements, a subcommand each.

python -m train.benchmark speed
python -m train.benchmark speed --only "Rnnlm step" --repeats 5
python -m train.benchmark perplexity runs/rnnlm-ptb-1
"""

from __future__ import annotations

import train.benchmark.perplexity as perplexity
import train.benchmark.speed as speed
from train.cli import run_subcommands

if __name__ == "__main__":
    run_subcommands(
        {
            "speed": (speed.main, speed.Options),
            "perplexity": (perplexity.main, perplexity.Options),
        }
    )
