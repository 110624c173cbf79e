"""Runs of many short trainings: a resumed run keeps the finished ones and trains the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.files.tensors import read_checkpoint, write_checkpoint
from train.run.folder import RunFolder, fixed_options
from train.run.saved_options import command_to_resume, options_to_resume
from train.run.signals import Stopped, StopSignals

__all__ = ["RestartableRun", "restartable_run"]


class RestartableRun:
    """The finished trainings of a run, in memory and in the checkpoint of its folder.

    Args:
        folder: the run's folder, locked.
        options: of the run.

    Attributes:
        finished: the result of each finished training, by the training's name.
    """

    def __init__(self, folder: RunFolder, options: Any) -> None:
        self.folder, self.options = folder, fixed_options(options)
        self.finished: dict[str, dict[str, Any]] = {}

    def save(self, name: str, result: dict[str, Any]) -> None:
        """Write the result of a training into the checkpoint: dicts, lists, numbers and texts.

        Raises:
            OSError: where the checkpoint cannot be written.
        """
        self.finished[name] = result
        checkpoint = {
            "finished": self.finished,
            "log": self.folder.log_state(),
            "options": self.options,
        }
        write_checkpoint(self.folder.checkpoint_file, checkpoint)

    def load(self) -> None:
        """Read the checkpoint that an earlier process has left, if there is one.

        Raises:
            ValueError: where the checkpoint is damaged, or config.json has changed since.
        """
        log = None
        if self.folder.checkpoint_file.exists():
            checkpoint = read_checkpoint(self.folder.checkpoint_file)
            if checkpoint["options"] != self.options:
                raise ValueError(
                    f"{self.folder.checkpoint_file}: config.json has changed since this "
                    "checkpoint was written"
                )
            self.finished, log = checkpoint["finished"], checkpoint["log"]
        self.folder.go_back(log)


@contextmanager
def restartable_run(script: str, subject: str, options: Any) -> Iterator[RestartableRun]:
    """A new run, or the run to resume with its finished trainings.

    Ctrl-C and SIGTERM end the block at once and print the command that resumes the run.

    Raises:
        FileExistsError: where the folder of a new run holds one already.
        FileNotFoundError: where there is no run to resume.
        InUseError: where another process works on it.
        ValueError: where the options are not those of the run to resume.
    """
    if options.resume is None:
        folder = RunFolder.create(script, subject, options)
    else:
        folder, options = options_to_resume(script, options)
    with StopSignals() as stop, folder.locked():
        stop.at_once = True
        run = RestartableRun(folder, options)
        if options.resume is not None:
            run.load()
            if folder.results_file.exists():
                state = "the run is finished; this repeats its report"
            else:
                state = f"{len(run.finished)} trainings are finished"
            print(f"{folder.path}: {state}", flush=True)
        try:
            yield run
        except Stopped:
            print(f"to go on: {command_to_resume(script, folder.path)}", flush=True)
            raise
