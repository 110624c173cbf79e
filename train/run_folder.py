"""A run folder: config.json, log.jsonl, weights.safetensors, results.json, curve.png."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy

from common.files import write_atomically


class RunFolder:
    """The files of one training run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.log_file = path / "log.jsonl"
        self.weights_file = path / "weights.safetensors"
        self.results_file = path / "results.json"
        self.curve_file = path / "curve.png"

    @classmethod
    def create(cls, name: str, options: Any) -> RunFolder:
        """Make ``options.out``, or the next free ``runs/NAME-K``, and write config.json.

        Raises:
            FileExistsError: where the folder holds a run already.
            OSError: where it cannot be made or written.
        """
        path = options.out
        if path is None:
            number = 1
            while (path := Path("runs") / f"{name}-{number}").exists():
                number += 1
        run = cls(Path(path))
        if run.config_file.exists():
            raise FileExistsError(f"{run.path} holds a run already; name another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        about = {
            "script": name.split("-")[0],
            "options": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in asdict(options).items()
            },
            "versions": {
                "time-layers": version("time-layers"),
                "numpy": numpy.__version__,
                "python": platform.python_version(),
            },
        }
        run.write_json(run.config_file, about)
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
            config["script"], config["options"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{run.config_file}: not the config of a run ({error})") from error
        return run, config

    def log(self, record: dict) -> None:
        """Append one line to log.jsonl."""
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def write_json(self, path: Path, content: dict) -> None:
        """Write one file of the folder, whole."""
        write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
