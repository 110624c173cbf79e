"""Runs that consist of many short trainings: what is finished is kept, the rest is done later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.files.checkpoint import read_checkpoint, write_checkpoint
from train.run.folder import RunFolder
from train.run.saved_options import command_to_resume, fixed_options, options_to_resume
from train.run.signals import Stopped, StopSignals

__all__ = ["Parts", "run_in_parts"]


class Parts:
    """The finished parts of a run, in its folder and in its checkpoint.

    Args:
        run: the folder, locked.
        options: of the run.

    Attributes:
        finished: what each part came to, by the part's name.
    """

    def __init__(self, run: RunFolder, options: Any) -> None:
        self.run, self.options = run, fixed_options(options)
        self.finished: dict[str, dict[str, Any]] = {}

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Write down what a part came to: dicts, lists, numbers and texts.

        Raises:
            OSError: where the checkpoint cannot be written.
        """
        self.finished[name] = result
        checkpoint = {
            "finished": self.finished,
            "log": self.run.log_state(),
            "options": self.options,
        }
        write_checkpoint(self.run.checkpoint_file, checkpoint)

    def take_up(self) -> None:
        """Find the parts that an earlier process has finished.

        Raises:
            ValueError: where the checkpoint is damaged, or config.json has changed since.
        """
        log = None
        if self.run.checkpoint_file.exists():
            checkpoint = read_checkpoint(self.run.checkpoint_file)
            if checkpoint["options"] != self.options:
                raise ValueError(
                    f"{self.run.checkpoint_file}: config.json has changed since it was written"
                )
            self.finished, log = checkpoint["finished"], checkpoint["log"]
        self.run.take_up(log)


@contextmanager
def run_in_parts(script: str, subject: str, options: Any) -> Iterator[Parts]:
    """The folder of a new run, or the one to resume with its finished parts.

    Ctrl-C and SIGTERM end the block at once; the command that goes on with the run is printed.

    Raises:
        FileExistsError: where the folder of a new run holds one already.
        FileNotFoundError: where there is no run to resume.
        InUseError: where another process works on it.
        ValueError: where the options are not those of the run to resume.
    """
    if options.resume is None:
        run = RunFolder.create(script, subject, options)
    else:
        run, options = options_to_resume(script, options)
    with StopSignals() as stop, run.locked():
        stop.at_once = True
        parts = Parts(run, options)
        if options.resume is not None:
            parts.take_up()
            done = f"{len(parts.finished)} parts are done"
            state = "is finished; its report again" if run.results_file.exists() else done
            print(f"{run.path}: {state}", flush=True)
        try:
            yield parts
        except Stopped:
            print(f"to go on: {command_to_resume(script, run.path)}", flush=True)
            raise
