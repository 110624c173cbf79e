"""The benchmarks, one subcommand each.

python -m train.benchmark speed
python -m train.benchmark speed --only "Rnnlm step" --repeats 5
python -m train.benchmark output
python -m train.benchmark scaling
python -m train.benchmark perplexity runs/rnnlm-ptb-1
python -m train.benchmark gpu
"""

from __future__ import annotations

import sys

try:
    from train.benchmark import gpu, output, perplexity, scaling, speed
    from train.run.command import run_subcommands
except ModuleNotFoundError as error:  # on a machine without a network, say
    sys.exit(
        f"error: {error.name} is not installed; pip install -e . brings it, and "
        "train/benchmark/gpu.py says which wheels to carry where there is no network"
    )

if __name__ == "__main__":
    run_subcommands(
        {
            "speed": (speed.main, speed.Options),
            "output": (output.main, output.Options),
            "scaling": (scaling.main, scaling.Options),
            "perplexity": (perplexity.main, perplexity.Options),
            "gpu": (gpu.main, gpu.Options),
        }
    )
