"""The folder of a run and its files.

config.json          the script, its options and the versions
log.jsonl            one line for each report and each validation
checkpoint.safetensors  everything that the rest of the run depends on, while it trains and after
weights.safetensors  the best weights so far
results.json         the final figures; there once the run is finished
curve.png            the picture
run.lock             there while a process writes into the folder; says which
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy

from common.files.atomic import write_atomically
from train.run.lock import locked

__all__ = ["RunFolder", "add_result", "read_results", "require_finished"]


class RunFolder:
    """The files of one training run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.log_file = path / "log.jsonl"
        self.checkpoint_file = path / "checkpoint.safetensors"
        self.weights_file = path / "weights.safetensors"
        self.results_file = path / "results.json"
        self.curve_file = path / "curve.png"
        self.lock_file = path / "run.lock"

    @classmethod
    def create(cls, script: str, subject: str, options: Any) -> RunFolder:
        """Make ``options.out``, or the next free ``runs/SCRIPT-SUBJECT-K``, and write config.json.

        Args:
            script: the command, by which config.json is found to be its run.
            subject: what the run is of, such as the corpus; may be empty.
            options: the command's; ``out`` is a folder or None.

        Raises:
            FileExistsError: where the folder holds a run already.
            InUseError: where another process is making it at this moment.
            OSError: where it cannot be made or written.
        """
        name = f"{script}-{subject}" if subject else script
        path = _next_free(name) if options.out is None else Path(options.out)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        with run.locked():
            if run.config_file.exists():
                go_on = f", or go on with it: --resume {path}" if hasattr(options, "resume") else ""
                raise FileExistsError(f"{path} holds a run already; name another --out{go_on}")
            run.write_config(script, options)
        return run

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, dict]:
        """The folder of an earlier run, and its config.

        Raises:
            FileNotFoundError: where there is no run.
            ValueError: where config.json is damaged.
        """
        run = cls(path)
        if not run.config_file.exists():
            raise FileNotFoundError(f"{path} is not the folder of a run: it has no config.json")
        try:
            config = json.loads(run.config_file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{run.config_file}: not the config of a run ({error})") from error
        parts = config if isinstance(config, dict) else {}
        if not isinstance(parts.get("script"), str) or not isinstance(parts.get("options"), dict):
            raise ValueError(
                f"{run.config_file}: not the config of a run (no script with its options)"
            )
        return run, config

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other process out for as long as the block runs.

        Raises:
            InUseError: where one is in; names it.
        """
        return locked(self.lock_file)

    def write_config(self, script: str, options: Any) -> None:
        """Write config.json: which script, with which options, by which versions."""
        about = {
            "script": script,
            "options": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in asdict(options).items()
                if key != "resume"
            },
            "versions": {
                "time-layers": version("time-layers"),
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
        }
        self.write_json(self.config_file, about)

    def log(self, record: dict) -> None:
        """Append one line to log.jsonl.

        Raises:
            OSError: where it cannot be written; what of it was written, ``take_up`` removes.
        """
        try:
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.log_file)) from error

    def log_length(self) -> int:
        """Bytes in log.jsonl, once all of them are on disk."""
        with open(self.log_file, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def take_up(self, log_length: int) -> None:
        """Bring the folder back to where a checkpoint was made.

        The log is cut to the length that it had then, and files that a process left half written
        when it was killed are removed. The lock must be held.
        """
        if self.log_file.exists() and self.log_file.stat().st_size > log_length:
            os.truncate(self.log_file, log_length)
        for file in vars(self).values():
            if file == self.path:
                continue
            for leftover in self.path.glob(f".{file.name}.*"):
                leftover.unlink()

    def write_json(self, path: Path, content: dict) -> None:
        """Write one file of the folder, whole."""
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _next_free(name: str) -> Path:
    """Make runs/NAME-K for the smallest K that nobody has."""
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1


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
