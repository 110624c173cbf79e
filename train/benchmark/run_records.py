"""Records of trained runs: what a run folder says, and the JSON files in results/ that keep it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from common.files.atomic import read_whole, write_atomically
from train import dynamic_evaluation, neural_cache
from train.benchmark.training_cost import training_flops
from train.run.folder import RunFolder, read_json, read_results
from train.run.saved_run import options_of

__all__ = [
    "ADAPTIVE_EVALUATIONS",
    "RunRecord",
    "command",
    "read_record",
    "record_of_run",
    "write_record",
]

# Evaluations that adapt to the text they read: name in results.json -> words, options of the script
ADAPTIVE_EVALUATIONS = {
    dynamic_evaluation.NAME: ("dynamic evaluation", dynamic_evaluation.Options),
    neural_cache.NAME: ("neural cache", neural_cache.Options),
}
MACHINE_OPTIONS = (  # not recorded
    *("data_dir", "out", "resume", "checkpoint_every", "log_interval", "tensorboard"),
)

FIGURES = ("parameters", "seconds", "valid_exact", "test_exact")  # in every results.json


@dataclass(frozen=True)
class RunRecord:
    """One trained model and its figures, as they are kept in JSON.

    Args:
        name: name of the file, or of the run folder.
        device: what it was trained on, in words.
        config: config.json of the run, without the options that belong to one machine.
        results: results.json of the run.
        curve: (seconds of training, updates, validation perplexity) after each epoch.
        training_flops: operations of the matrix products of its training; None where unknown.
        machine_gflops: 10^9 operations a second in the fastest product of the machine that kept
            the run; None where that was not measured.
    """

    name: str
    device: str
    config: dict[str, Any]
    results: dict[str, Any]
    curve: list[tuple[float, int, float]]
    training_flops: int | None = None
    machine_gflops: float | None = None

    @property
    def model(self) -> str:
        """Name of the model's class."""
        return "".join(part.capitalize() for part in self.config["script"].split("_"))

    @property
    def command(self) -> str:
        """The command that trains it again, with the current defaults and presets."""
        script = self.config["script"]
        return command(script, options_of(script), self.config["options"])

    @property
    def corpus(self) -> str:
        """Name of the text; of pydoc, which each Python has its own of, with the version."""
        options = self.config["options"]
        name = self.config.get("corpus", {}).get("name", Path(options["corpus"]).stem)
        python = self.config.get("versions", {}).get("python")
        return f"{name} of Python {python}" if name == "pydoc" and python else name

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return self.results.get("epochs", len(self.curve))

    @property
    def seed(self) -> int:
        """What its weights, masks and windows were drawn from."""
        return self.config["options"].get("seed", 1)

    @property
    def differs_by_seed_alone(self) -> tuple[str, ...]:
        """Equal for runs of one command, on one text and machine, and from different seeds."""
        options = {k: v for k, v in self.config["options"].items() if k != "seed"}
        settings = json.dumps([self.config["script"], options], sort_keys=True)
        return settings, self.corpus, self.device


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    values = value if isinstance(value, (list, tuple)) else [value]
    return " ".join([f"--{flag}", *(shlex.quote(str(part)) for part in values)])


def command(module: str, kind: Any, options: Mapping[str, Any], *words: str) -> str:
    """The command line of a script: ``words``, then the ``options`` that are not defaults.

    Args:
        module: the script in train/.
        kind: its class of options. With a preset, the preset's settings are the defaults.
        options: by name; those that belong to one machine are left out.
        words: positional arguments.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    defaults |= getattr(kind, "PRESETS", {}).get(options.get("preset"), {})
    given = [
        _flag(name, value)
        for name, value in options.items()
        if name not in MACHINE_OPTIONS and value != defaults.get(name, MISSING)
    ]
    return " ".join([f"python -m train.{module}", *words, *given])


def _check(where: Path, script: Any, results: Mapping[str, Any]) -> None:
    """Raise ValueError for a run of another script, or one that is not finished."""
    try:
        options_of(script)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    for name in FIGURES:
        if isinstance(results.get(name), bool) or not isinstance(results.get(name), (int, float)):
            raise ValueError(
                f"{where}: there is no {name} in its results; expected a finished training run"
            )


def _curve(run: RunFolder) -> list[tuple[float, int, float]]:
    """The validations in log.jsonl, as in ``RunRecord.curve``."""
    curve = []
    try:
        for line in read_whole(run.log_file).splitlines():
            record = json.loads(line)
            if "valid" in record and record["valid"] is not None:  # null: not a finite number
                seconds, valid = float(record["seconds"]), float(record["valid"])
                curve.append((seconds, int(record["step"]), valid))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{run.log_file}: not the log of a run ({error})") from error
    return curve


def record_of_run(path: Path, name: str | None = None, device: str | None = None) -> RunRecord:
    """Record of the finished run in a folder.

    Args:
        path: the folder.
        name: name of the record; that of the folder if None.
        device: what it was trained on; "CPU" or "GPU" if None.

    Raises:
        FileNotFoundError: where there is no run, or no log.
        ValueError: where a file is damaged, or the run is not finished.
    """
    run, config = RunFolder.open(path)
    script, options = config["script"], config["options"]
    results = read_results(run)
    _check(path, script, results)
    is_whole = results.get("epochs", options.get("epochs")) == options.get("epochs")
    if not is_whole and not results.get("stopped_early"):
        raise ValueError(f"{path}: the run has more epochs to train than its results cover")
    curve = _curve(run)
    return RunRecord(
        name or path.resolve().name,
        device or ("GPU" if options.get("gpu") else "CPU"),
        {**config, "options": {k: v for k, v in options.items() if k not in MACHINE_OPTIONS}},
        results,
        curve,
        training_flops(path, results.get("epochs", len(curve))),
    )


def read_record(path: Path) -> RunRecord:
    """Read a file of ``write_record``.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged.
    """
    kept = read_json(path, "the record of a run")
    try:
        curve = [(float(s), int(step), float(valid)) for s, step, valid in kept.pop("curve")]
        record = RunRecord(**kept, curve=curve)
        script = record.config["script"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the record of a run ({error})") from error
    _check(path, script, record.results)
    return record


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write ``record`` to NAME.json in ``folder``; returns the path.

    Raises:
        FileExistsError: where there is a record of that name.
        ValueError: for a name that is not a plain file name.
    """
    path = folder / f"{record.name}.json"
    if not record.name or path.name != f"{record.name}.json" or record.name.startswith("."):
        raise ValueError(f"expected a name without folders, got {record.name!r}")
    if path.exists():
        raise FileExistsError(f"{path} exists already; remove it first, or choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(asdict(record), indent=2) + "\n").encode())
    return path
