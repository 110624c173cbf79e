"""Figures that were measured on a trained run later, kept with those of the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from train.run_folder import RunFolder

__all__ = ["add_result", "read_results", "require_finished"]


def read_results(run: RunFolder) -> dict[str, Any]:
    """What results.json says; nothing where training has not ended.

    Raises:
        ValueError: where the file is damaged.
    """
    if not run.results_file.exists():
        return {}
    try:
        results = json.loads(run.results_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{run.results_file}: not the results of a run ({error})") from error
    if not isinstance(results, dict):
        raise ValueError(f"{run.results_file}: not the results of a run")
    return results


def require_finished(path: Path) -> None:
    """See that figures can be added to the run in ``path``, before they are measured.

    Raises:
        InUseError: where another process writes into the folder.
        ValueError: where its training has not ended, or results.json is damaged.
    """
    run = RunFolder(path)
    with run.locked():
        if not read_results(run):
            raise ValueError(f"{path}: its training has not ended, there is no results.json yet")


def add_result(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Put ``figures`` under ``name`` into results.json, in place of earlier ones of that name.

    Raises:
        InUseError: where another process writes into the folder.
        ValueError: where the file is damaged.
    """
    run = RunFolder(path)
    with run.locked():
        run.write_json(run.results_file, {**read_results(run), name: figures})
