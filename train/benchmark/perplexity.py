"""The table of perplexities, from run folders and from the runs that are kept in results/.

python -m train.benchmark perplexity
python -m train.benchmark perplexity runs/rnnlm-ptb-1 --keep rnnlm-ptb
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from train.benchmark.perplexity_figure import draw
from train.benchmark.perplexity_records import read_record, read_run, write_record
from train.benchmark.perplexity_table import markdown, plain_text


@dataclass(frozen=True)
class Options:
    """Print model, size, training time and perplexities of every measured run. Nothing is measured
    here: the figures are those that training, dynamic evaluation and the neural cache left."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of finished runs, beside those that are kept."""
    keep: str | None = None
    """Keep the one run that is named as results/KEEP.json."""
    device: str | None = None
    """On what the named runs were trained, such as "CPU, 2 cores"; CPU or GPU if not given."""
    results: Path = Path("results")
    """Folder of the runs that are kept."""
    readme: bool = False
    """Print the table as Markdown."""
    figure: Path | None = None
    """Draw validation perplexity against time, all runs in one picture, such as
    docs/perplexity.png."""


def main(options: Options) -> None:
    """Run the command."""
    if options.keep is not None:
        if len(options.runs) != 1:
            raise ValueError(f"--keep: expected one run to keep, got {len(options.runs)}")
        record = read_run(options.runs[0], options.keep, options.device)
        print(f"kept as {write_record(record, options.results)}")
    kept = [read_record(path) for path in sorted(options.results.glob("*.json"))]
    named = [] if options.keep else [read_run(p, device=options.device) for p in options.runs]
    runs = kept + named
    if not runs:
        raise ValueError(
            f"expected the folder of a run, or a record in {options.results}; got none"
        )
    print(markdown(runs) if options.readme else plain_text(runs))
    if options.figure is not None:
        draw(runs, options.figure)
        print(f"figure saved to {options.figure}")
