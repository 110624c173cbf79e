"""Print the log of a run as CSV.

python -m train.export_log runs/rnnlm-ptb-1 > log.csv
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from train.run.command import run_command
from train.run.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Print log.jsonl of a run as CSV: a row for each of its lines, a column for each of its
    fields, which train/run/folder.py explains. The run may still be going on."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


def main(options: Options) -> None:
    """Run the command."""
    run, _ = RunFolder.open(options.run)
    records = run.records()
    columns = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)


if __name__ == "__main__":
    run_command(main, Options)
