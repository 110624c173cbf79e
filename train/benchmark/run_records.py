"""Measured runs: what a run folder says, and the small JSON file that keeps it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import train.dynamic_evaluation as dynamic_evaluation
import train.neural_cache as neural_cache
from common.files import write_atomically
from train.measured import read_results
from train.run_folder import RunFolder
from train.trained import SCRIPTS

__all__ = ["LATER", "MeasuredRun", "command", "read_record", "read_run", "write_record"]

LATER = {
    dynamic_evaluation.NAME: ("dynamic evaluation", dynamic_evaluation.Options),
    neural_cache.NAME: ("neural cache", neural_cache.Options),
}
OF_THE_PLACE = ("data_dir", "out", "resume", "checkpoint_every", "log_interval")  # no figure

FIGURES = ("parameters", "seconds", "valid_exact", "test_exact")  # that every run has


@dataclass(frozen=True)
class MeasuredRun:
    """One trained model and its figures, as JSON keeps them.

    Args:
        name: of the file, or of the run folder.
        device: on what it was trained, in words.
        config: config.json of the run without the places of this machine.
        results: results.json of the run.
        curve: (seconds of training, updates, validation perplexity) after each epoch.
    """

    name: str
    device: str
    config: dict[str, Any]
    results: dict[str, Any]
    curve: list[tuple[float, int, float]]

    @property
    def model(self) -> str:
        """Name of the model's class."""
        return "".join(part.capitalize() for part in self.config["script"].split("_"))

    @property
    def command(self) -> str:
        """What trains it again, with the defaults and presets of today."""
        script = self.config["script"]
        return command(script, SCRIPTS[script].Options, self.config["options"])

    @property
    def corpus(self) -> str:
        """Name of the text."""
        return Path(self.config["options"]["corpus"]).stem

    @property
    def epochs(self) -> int:
        """How often the training text was read."""
        return self.results.get("epochs", len(self.curve))


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    values = value if isinstance(value, (list, tuple)) else [value]
    return " ".join([f"--{flag}", *(shlex.quote(str(part)) for part in values)])


def command(module: str, kind: Any, options: Mapping[str, Any], *words: str) -> str:
    """What to type: the words, then those of ``options`` that are not the defaults of ``kind``.

    With a preset its settings are the defaults.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    defaults |= getattr(kind, "PRESETS", {}).get(options.get("preset"), {})
    given = [
        _flag(name, value)
        for name, value in options.items()
        if name not in OF_THE_PLACE and value != defaults.get(name, MISSING)
    ]
    return " ".join([f"python -m train.{module}", *words, *given])


def _check(where: Path, script: Any, results: Mapping[str, Any]) -> None:
    """Raise ValueError for a run that is not in the table's line, or not finished."""
    if script not in SCRIPTS:
        raise ValueError(f"{where}: a run of {script!r}; expected one of {', '.join(SCRIPTS)}")
    for name in FIGURES:
        if isinstance(results.get(name), bool) or not isinstance(results.get(name), (int, float)):
            raise ValueError(
                f"{where}: there is no {name} in its results; expected a run that was trained here "
                "to its end"
            )


def _curve(run: RunFolder) -> list[tuple[float, int, float]]:
    """The validations in log.jsonl."""
    curve = []
    try:
        for line in run.log_file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "valid" in record:
                seconds, valid = float(record["seconds"]), float(record["valid"])
                curve.append((seconds, int(record["step"]), valid))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.log_file}: not the log of a run ({error})") from error
    return curve


def read_run(path: Path, name: str | None = None, device: str | None = None) -> MeasuredRun:
    """What the folder of a finished run says.

    Args:
        path: the folder.
        name: what to call it; as the folder if None.
        device: on what it was trained; "CPU" or "GPU" if None.

    Raises:
        FileNotFoundError: where there is no run, or no log.
        ValueError: where a file is damaged, or the run is not finished.
    """
    run, config = RunFolder.open(path)
    script, options = config["script"], config["options"]
    results = read_results(run)
    _check(path, script, results)
    if results.get("epochs", options.get("epochs")) != options.get("epochs"):
        raise ValueError(f"{path}: it was asked for more epochs than its results are of")
    return MeasuredRun(
        name or path.resolve().name,
        device or ("GPU" if options.get("gpu") else "CPU"),
        {**config, "options": {k: v for k, v in options.items() if k not in OF_THE_PLACE}},
        results,
        _curve(run),
    )


def read_record(path: Path) -> MeasuredRun:
    """What ``write_record`` wrote.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        curve = [(float(s), int(step), float(valid)) for s, step, valid in kept.pop("curve")]
        record = MeasuredRun(**kept, curve=curve)
        script = record.config["script"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the record of a run ({error})") from error
    _check(path, script, record.results)
    return record


def write_record(record: MeasuredRun, folder: Path) -> Path:
    """Keep ``record`` as NAME.json; the file.

    Raises:
        FileExistsError: where there is one of that name.
        ValueError: for a name that is no plain file name.
    """
    path = folder / f"{record.name}.json"
    if not record.name or path.name != f"{record.name}.json" or record.name.startswith("."):
        raise ValueError(f"expected a name without folders, got {record.name!r}")
    if path.exists():
        raise FileExistsError(f"{path} keeps a run already; remove it first, or name another")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(asdict(record), indent=2) + "\n").encode())
    return path
