"""The table and the figure of perplexities, from run folders and from the records in results/.

python -m train.benchmark perplexity
python -m train.benchmark perplexity runs/rnnlm-ptb-1 --keep rnnlm-ptb
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from common.plotting import save
from train.benchmark.report import aligned
from train.benchmark.run_records import (
    ADAPTIVE_EVALUATIONS,
    RunRecord,
    command,
    read_record,
    record_of_run,
    write_record,
)

HEAD = (
    *("model", "corpus", "parameters", "epochs", "time", "device"),
    *("validation", "test", "book's test", "command"),
)
TEXT_COLUMNS = ("model", "corpus", "device", "command")


@dataclass(frozen=True)
class Options:
    """Print model, size, training time and perplexities of finished runs. Nothing is measured here:
    the figures are those that training, dynamic evaluation and the neural cache left behind."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of finished runs to show along with the records."""
    keep: str | None = None
    """Keep the run given as the record results/KEEP.json."""
    device: str | None = None
    """What the runs given were trained on, such as "CPU, 2 cores"; CPU or GPU if not given."""
    results: Path = Path("results")
    """Folder of the records."""
    readme: bool = False
    """Print the table as Markdown."""
    figure: Path | None = None
    """Draw validation perplexity against time, all runs in one figure, such as
    docs/perplexity.png."""


def plain_text(runs: Sequence[RunRecord]) -> str:
    """The table in columns; below each run its dynamic evaluation and its neural cache."""
    return "\n".join(aligned([HEAD, *_rows(runs)], left=TEXT_COLUMNS))


def markdown(runs: Sequence[RunRecord]) -> str:
    """The same table in Markdown, commands as code, test perplexities in bold."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    test = HEAD.index("test")
    for row in _rows(runs):
        cells = [cell.replace("|", "\\|") for cell in row]
        cells[test] = f"**{cells[test]}**"
        cells[-1] = f"`{cells[-1]}`"
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines)


def _rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """Corpus by corpus, best test perplexity first; adaptive evaluations below their run.

    Raises:
        ValueError: where a record lacks something or holds something else.
    """
    found = []
    for run in runs:
        try:
            rows = [_row(run), *_adaptive_rows(run)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{run.name}: not the record of a run ({error!r})") from error
        found.append((run.corpus, run.results["test_exact"], rows))
    return [row for *_, rows in sorted(found, key=lambda run: run[:2]) for row in rows]


def _row(run: RunRecord) -> tuple[str, ...]:
    results = run.results
    perplexities = (results.get(name) for name in ("valid_exact", "test_exact", "test_book"))
    return (
        *(run.model, run.corpus, f"{results['parameters']:,}", str(run.epochs)),
        *(_duration(results["seconds"]), run.device, *map(_perplexity, perplexities), run.command),
    )


def _adaptive_rows(run: RunRecord) -> list[tuple[str, ...]]:
    rows = []
    for name, (words, options) in ADAPTIVE_EVALUATIONS.items():
        if name in run.results:
            result = run.results[name]
            perplexities = [_perplexity(result.get(split)) for split in ("valid", "test")]
            again = command(name, options, result.get("settings", {}), "RUN")
            blank = [""] * 4
            rows.append((f"{run.model} + {words}", run.corpus, *blank, *perplexities, "", again))
    return rows


def _duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _perplexity(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def draw(runs: Sequence[RunRecord], path: Path) -> None:
    """Save one line for each run. Both axes are logarithmic, for runs of seconds and of hours.

    Raises:
        ValueError: where no run has a validation, or for a format that is not known.
        OSError: where the figure cannot be written.
    """
    drawn = [run for run in runs if run.curve]
    if not drawn:
        raise ValueError("expected at least one run with a validation to draw, got none")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for run in sorted(drawn, key=lambda run: run.results["test_exact"]):
        minutes = [seconds / 60 for seconds, _, _ in run.curve]
        label = f"{run.name}, {run.device}: test {run.results['test_exact']:.1f}"
        axes.plot(minutes, [valid for *_, valid in run.curve], "o-", markersize=3, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, subs in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))):
        axis.set_major_locator(LogLocator(subs=subs, numticks=30))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("validation perplexity")
    axes.grid(alpha=0.3, which="both")
    for text in axes.legend(fontsize="small").get_texts():
        text.set_parse_math(False)  # a $ in the name of a folder is a $
    save(figure, path, dpi=100)


def main(options: Options) -> None:
    """Run the command."""
    if options.keep is not None:
        if len(options.runs) != 1:
            raise ValueError(f"--keep: expected one run to keep, got {len(options.runs)}")
        record = record_of_run(options.runs[0], options.keep, options.device)
        print(f"kept as {write_record(record, options.results)}")
    runs = [read_record(path) for path in sorted(options.results.glob("*.json"))]
    if options.keep is None:
        runs += [record_of_run(path, device=options.device) for path in options.runs]
    if not runs:
        raise ValueError(
            f"expected the folder of a run, or a record in {options.results}; got none"
        )
    print(markdown(runs) if options.readme else plain_text(runs))
    if options.figure is not None:
        draw(runs, options.figure)
        print(f"figure saved to {options.figure}")
