"""The table and the figure of perplexities, from run folders and from the records in results/.

python -m train.benchmark perplexity
python -m train.benchmark perplexity runs/rnnlm-ptb-1 --keep rnnlm-ptb
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from common.plotting import PALETTE, name_points, readable, save
from train.benchmark.report import aligned
from train.benchmark.run_records import (
    ADAPTIVE_EVALUATIONS,
    RunRecord,
    command,
    read_record,
    record_of_run,
    write_record,
)
from train.benchmark.training_cost import gflops_of_this_machine

HEAD = (
    *("model", "corpus", "parameters", "epochs", "TFLOP", "time", "device"),
    *("validation", "test", "book's test", "command"),
)
TEXT_COLUMNS = ("model", "corpus", "device", "command")
TITLES = {"ptb": "Penn Treebank"}  # of a panel; any other corpus has its name


@dataclass(frozen=True)
class Options:
    """Print model, size, cost and perplexities of finished runs, as training, dynamic evaluation
    and the neural cache left them behind. Runs of one command from different seeds are one row: the
    mean and the standard deviation. TFLOP counts 10^12 operations in the matrix products of the
    training. Only --keep measures something: how fast this machine multiplies, in GFLOP/s."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of finished runs to show along with the records; by default none."""
    keep: str | None = None
    """Keep the run given as the record results/KEEP.json, with the GFLOP/s of this machine: keep a
    run where it was trained, while nothing else runs. By default nothing is kept."""
    device: str | None = None
    """What the runs given were trained on, such as "CPU, 2 cores"; CPU or GPU if not given."""
    results: Path = Path("results")
    """Folder of the records."""
    readme: bool = False
    """Print the table as Markdown."""
    figure: Path | None = None
    """Draw validation perplexity against time, a panel for each corpus, such as
    docs/perplexity.png; by default none is drawn."""


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
    return [row for group in _groups(runs) for row in (_row(group), *_adaptive_rows(group))]


def _groups(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs that differ by their seed alone, in order of seeds, as the table has them.

    A second run of a seed, of another version perhaps, is of another group.
    """
    groups: dict[tuple, list[RunRecord]] = {}
    repeated: Counter[tuple] = Counter()
    for run in runs:
        try:
            _row([run])
            _adaptive_rows([run])
            key = run.differs_by_seed_alone
            repeated[key, run.seed] += 1
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{run.name}: not the record of a run ({error!r})") from error
        groups.setdefault((key, repeated[key, run.seed]), []).append(run)
    for group in groups.values():
        group.sort(key=lambda run: run.seed)
    return sorted(groups.values(), key=lambda group: (group[0].corpus, _mean(group, "test_exact")))


def _row(group: Sequence[RunRecord]) -> tuple[str, ...]:
    first = group[0]
    flops = first.training_flops
    is_alone = len(group) == 1
    return (
        first.model if is_alone else f"{first.model}, seeds {_seeds(group)}",
        *(first.corpus, f"{first.results['parameters']:,}", str(first.epochs)),
        "" if flops is None else f"{flops / 1e12:,.3g}",
        *(_duration(_mean(group, "seconds")), _device(group)),
        *(_spread(group, name) for name in ("valid_exact", "test_exact", "test_book")),
        first.command if is_alone else _same_command(group),
    )


def _adaptive_rows(group: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    rows = []
    for run in group:
        model = f"{run.model}, seed {run.seed}" if len(group) > 1 else run.model
        for name, (words, options) in ADAPTIVE_EVALUATIONS.items():
            if name in run.results:
                result = run.results[name]
                perplexities = [_perplexity(result.get(split)) for split in ("valid", "test")]
                again = command(name, options, result.get("settings", {}), "RUN")
                blank = [""] * 5
                rows.append((f"{model} + {words}", run.corpus, *blank, *perplexities, "", again))
    return rows


def _same_command(group: Sequence[RunRecord]) -> str:
    """The command of all of them, without the seed."""
    options = {k: v for k, v in group[0].config["options"].items() if k != "seed"}
    return replace(group[0], config={**group[0].config, "options": options}).command


def _seeds(group: Sequence[RunRecord]) -> str:
    """1, 2, 5; or 1 to 5."""
    seeds = [run.seed for run in group]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _device(group: Sequence[RunRecord]) -> str:
    """In words, with the speed of the machine where it was measured."""
    speeds = [run.machine_gflops for run in group if run.machine_gflops is not None]
    return f"{group[0].device}, {median(speeds):.0f} GFLOP/s" if speeds else group[0].device


def _mean(group: Sequence[RunRecord], name: str) -> float:
    return fmean(run.results[name] for run in group)


def _spread(group: Sequence[RunRecord], name: str) -> str:
    """The mean, of two runs or more with the standard deviation of one run."""
    values = [run.results[name] for run in group if name in run.results]
    if not values:
        return ""
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return _perplexity(fmean(values)) + deviation


def _duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _perplexity(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def draw(runs: Sequence[RunRecord], path: Path) -> None:
    """Save a panel for each corpus and a line for each run, of one color where only seeds differ.

    Both axes are logarithmic, for runs of seconds and of hours.

    Raises:
        ValueError: where no run has a validation, or for a format that is not known.
        OSError: where the figure cannot be written.
    """
    groups = _groups([run for run in runs if run.curve])
    if not groups:
        raise ValueError("expected at least one run with a validation to draw, got none")
    corpora = sorted({group[0].corpus for group in groups})
    with readable():
        figure = Figure(figsize=(11, 0.5 + 6 * len(corpora)), layout="constrained")
        panels = figure.subplots(len(corpora), squeeze=False)[:, 0]
        for corpus, axes in zip(corpora, panels, strict=True):
            axes.set_title(TITLES.get(corpus, corpus)).set_parse_math(False)
            _draw_corpus([group for group in groups if group[0].corpus == corpus], axes)
        save(figure, path, dpi=100)


def _draw_corpus(groups: Sequence[Sequence[RunRecord]], axes: Axes) -> None:
    names = []
    longest = max(run.curve[-1][0] / 60 for group in groups for run in group)
    for group, color in zip(groups, itertools.cycle(PALETTE)):
        for run in group:
            minutes = [seconds / 60 for seconds, _, _ in run.curve]
            valid = [valid for *_, valid in run.curve]
            axes.plot(minutes, valid, "o-", markersize=6, linewidth=2, color=color)
        names.append((longest, valid[-1], _label(group), color))  # right of all lines
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, subs in ((axes.xaxis, (1, 2, 5)), (axes.yaxis, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))):
        axis.set_major_locator(LogLocator(subs=subs, numticks=30))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("validation perplexity")
    axes.grid(which="both")
    name_points(axes, names)


def _label(group: Sequence[RunRecord]) -> str:
    """Model, figure and budget, such as "AwdRnnlm: test 82.65 after 50 min on CPU, 2 cores"."""
    first = group[0]
    seeds = f", {len(group)} seeds" if len(group) > 1 else ""
    time, test = _duration(_mean(group, "seconds")), _spread(group, "test_exact")
    return f"{first.model}: test {test}\n{time} on {first.device}{seeds}"


def main(options: Options) -> None:
    """Run the command."""
    if options.keep is not None:
        if len(options.runs) != 1:
            raise ValueError(f"--keep: expected one run to keep, got {len(options.runs)}")
        record = record_of_run(options.runs[0], options.keep, options.device)
        record = replace(record, machine_gflops=round(gflops_of_this_machine(), 1))
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
