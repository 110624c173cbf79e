"""The measured runs as a table, for the screen and for a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence

from train.benchmark.perplexity_records import LATER, MeasuredRun, command

__all__ = ["markdown", "plain_text"]

HEAD = (
    *("model", "corpus", "parameters", "epochs", "time", "device"),
    *("validation", "test", "book's test", "command"),
)
WORDS = ("model", "corpus", "device", "command")  # columns of words; the others are figures


def _time(seconds: float) -> str:
    """Whole seconds below two minutes, whole minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _perplexity(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _rows(run: MeasuredRun) -> list[tuple[str, ...]]:
    """A row of the model as it is, and one for each way of measuring that remembers the text."""
    results = run.results
    rows: list[tuple[str, ...]] = [
        (
            run.model,
            run.corpus,
            f"{results['parameters']:,}",
            str(run.epochs),
            _time(results["seconds"]),
            run.device,
            *(_perplexity(results.get(name)) for name in ("valid_exact", "test_exact")),
            _perplexity(results.get("test_book")),
            run.command,
        )
    ]
    for name, (spoken, kind) in LATER.items():
        if name in results:
            later = results[name]
            rows.append(
                (
                    f"{run.model} + {spoken}",
                    run.corpus,
                    *("", "", "", ""),
                    *(_perplexity(later.get(split)) for split in ("valid", "test")),
                    "",
                    command(name, kind, later.get("settings", {}), "RUN"),
                )
            )
    return rows


def _sorted_rows(runs: Sequence[MeasuredRun]) -> list[tuple[str, ...]]:
    """Corpus by corpus; the best test perplexity of a model as it is comes first."""
    in_order = sorted(runs, key=lambda run: (run.corpus, run.results["test_exact"]))
    return [row for run in in_order for row in _rows(run)]


def plain_text(runs: Sequence[MeasuredRun]) -> str:
    """Columns for the screen; under each run its dynamic evaluation and its neural cache."""
    rows = [HEAD, *_sorted_rows(runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in WORDS else cell.rjust(width)
            for name, cell, width in zip(HEAD, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def markdown(runs: Sequence[MeasuredRun]) -> str:
    """The same table for a Markdown file, commands as code, test in bold."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    test = HEAD.index("test")
    for row in _sorted_rows(runs):
        cells = [cell.replace("|", "\\|") for cell in row]
        cells[test] = f"**{cells[test]}**"
        cells[-1] = f"`{cells[-1]}`"
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines)
