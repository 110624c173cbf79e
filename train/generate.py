"""Let a trained model write.

python -m train.generate runs/rnnlm-ptb-1 --prompt "the company said" --temperature 0.8
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from common import kernels
from train.run.command import run_command
from train.run.saved_run import open_model


@dataclass(frozen=True)
class Options:
    """Print a text that a trained model makes up, word by word or character by character."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    prompt: str = ""
    """The text to continue; empty begins a new sentence."""
    length: int = 100
    """How many tokens to add."""
    temperature: float = 1.0
    """Below 1 plays safe, above 1 takes risks."""
    top_k: int | None = None
    """Draw from the k most likely tokens only; by default from all."""
    top_p: float | None = None
    """Draw from the fewest tokens whose probabilities reach p; by default from all."""
    greedy: bool = False
    """Always take the most likely token."""
    allow_unk: bool = False
    """Let <unk> be drawn too."""
    seed: int = 1
    """Another seed, another text."""
    gpu: bool = False
    """Compute on the GPU."""


def main(options: Options) -> None:
    """Run the command."""
    model, vocabulary = open_model(options.run)
    kernels.print_notice()
    start = vocabulary.encode(options.prompt) or [vocabulary.first_id]
    unknown = vocabulary.word_to_id.get("<unk>")
    if unknown in start:
        print(
            "note: <unk> stands for words of the prompt that training has not seen "
            "(words are lower-case in pydoc and ptb)",
            file=sys.stderr,
        )
    ids = model.generate(
        start,
        options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        greedy=options.greedy,
        skip_ids=[] if unknown is None or options.allow_unk else [unknown],
        rng=options.seed,
    )
    print(vocabulary.decode(ids if options.prompt else ids[1:]))


if __name__ == "__main__":
    run_command(main, Options)
