"""Runs of several trainings: a resumed run keeps the finished ones and trains the others.

A training that takes long keeps how far it has come, too, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from common.files.tensors import read_checkpoint, write_checkpoint
from datasets.corpus import Corpus
from train.run.folder import RunFolder, fixed_options, note_differences
from train.run.process import OneProcess, Stopped
from train.run.saved_options import command_to_resume, options_to_resume

__all__ = ["RestartableRun", "restartable_run"]

Kept = TypeVar("Kept")

CHANGEABLE = ("file", "data")  # where the text lies; it is compared with that of the run


class RestartableRun:
    """The finished trainings of a run, in memory and in the checkpoint of its folder.

    Args:
        folder: the run's folder, locked.
        options: of the run.

    Attributes:
        finished: the result of each finished training, by the training's name.
        begun: how far the training in progress has come, under its name, where it says so.
    """

    def __init__(self, folder: RunFolder, options: Any) -> None:
        self.folder, self.options = folder, fixed_options(options, CHANGEABLE)
        self.finished: dict[str, dict[str, Any]] = {}
        self.begun: dict[str, dict[str, Any]] = {}

    def save(self, name: str, result: dict[str, Any]) -> None:
        """Write the result of a training into the checkpoint: dicts, lists, numbers and texts.

        Raises:
            OSError: where the checkpoint cannot be written.
        """
        self.finished[name], self.begun = result, {}
        self._write()

    def save_begun(self, name: str, state: dict[str, Any]) -> None:
        """Write how far a training has come into the checkpoint; arrays may be among it.

        Raises:
            OSError: where the checkpoint cannot be written.
        """
        self.begun = {name: state}
        self._write()

    def _write(self) -> None:
        checkpoint = {
            "finished": self.finished,
            "begun": self.begun,
            "log": self.folder.log_state(),
            "options": self.options,
        }
        write_checkpoint(self.folder.checkpoint_file, checkpoint)

    def kept(self, name: str, build: Callable[[dict[str, Any]], Kept]) -> Kept | None:
        """What ``build`` makes of the result of a finished training; None where it is not finished.

        Raises:
            ValueError: where the result lacks something that it needs.
        """
        return self._built(self.finished, name, build)

    def kept_begun(self, name: str, build: Callable[[dict[str, Any]], Kept]) -> Kept | None:
        """What ``build`` makes of how far a training has come; None where nothing is known of it.

        Raises:
            ValueError: where the state lacks something that it needs.
        """
        return self._built(self.begun, name, build)

    def _built(
        self, of: dict[str, dict[str, Any]], name: str, build: Callable[[dict[str, Any]], Kept]
    ) -> Kept | None:
        if name not in of:
            return None
        try:
            return build(of[name])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.folder.checkpoint_file}: not a checkpoint of this version ({error!r})"
            ) from error

    def load(self) -> None:
        """Read the checkpoint that an earlier process has left, if there is one.

        Raises:
            ValueError: where the checkpoint is damaged or of another kind of run, or config.json
                has changed since.
        """
        log, file = None, self.folder.checkpoint_file
        if file.exists():
            checkpoint = read_checkpoint(file)
            if checkpoint.keys() - {"begun"} != {"finished", "log", "options"}:
                raise ValueError(f"{file}: not the checkpoint of such a run")
            then = {k: v for k, v in checkpoint["options"].items() if k not in CHANGEABLE}
            if then != self.options:
                raise ValueError(
                    f"{file}: config.json has changed since this checkpoint was written"
                )
            self.finished, log = checkpoint["finished"], checkpoint["log"]
            self.begun = checkpoint.get("begun", {})
        self.folder.go_back(log)


@contextmanager
def restartable_run(
    script: str, subject: str, options: Any, corpus: Corpus | None = None
) -> Iterator[RestartableRun]:
    """A new run, or the run to resume with its finished trainings.

    A signal to stop ends the block at once and prints the command that resumes the run.

    Args:
        script: the command.
        subject: what the run is of; may be empty.
        options: the command's.
        corpus: the text of ``options.file``; None for a run without one.

    Raises:
        FileExistsError: where the folder of a new run holds one already.
        FileNotFoundError: where there is no run to resume.
        InUseError: where another process works on it.
        ValueError: where the options or the text are not those of the run to resume.
    """
    if options.resume is None:
        folder = RunFolder.create(script, subject, options, corpus)
    else:
        folder = RunFolder(options.resume)
        given = [name for name in CHANGEABLE if getattr(options, name, None) is not None]
        options = options_to_resume(script, options, given)
    with OneProcess() as process, folder.locked():
        process.at_once = True
        run = RestartableRun(folder, options)
        if options.resume is not None:
            _, config = RunFolder.open(folder.path)
            if corpus is not None:
                folder.expect_text(config, corpus, "--file")
            run.load()
            note_differences(config)
            folder.write_config(script, options, corpus)
            if folder.results_file.exists():
                state = "the run is finished; this repeats its report"
            else:
                state = f"{len(run.finished)} trainings are finished"
                state += ", one has begun" if run.begun else ""
            print(f"{folder.path}: {state}", flush=True)
        try:
            yield run
        except Stopped:
            print(f"to go on: {command_to_resume(script, folder.path)}", flush=True)
            raise
