"""The log of a run as an event file, which TensorBoard shows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["EventFile", "require_tensorboard"]

TAGS = {
    "loss": "train/loss",
    "perplexity": "train/perplexity",
    "lr": "train/learning_rate",
    "valid": "valid/perplexity",
}


def require_tensorboard() -> None:
    """Raise ValueError where the package that writes event files is not installed."""
    if find_spec("tensorboardX") is None:
        raise ValueError(
            "--tensorboard: tensorboardX, which writes the files, is not installed; it is an "
            'extra: pip install -e ".[tensorboard]" (--no-tensorboard does without)'
        )


class EventFile:
    """The one event file of a run, made anew by each process that works on the run.

    The log is cut to the last checkpoint when a run goes on, so the file is made of its records.
    One that an earlier process has left is emptied, and what a TensorBoard that runs has read of it
    is hidden there; it would wait for ever for a file that is gone, so the next process removes it.
    The time of an event is that of training, without the pauses between two processes.

    Args:
        folder: of the run.
        records: of the log so far.
        seconds: of training so far.
    """

    def __init__(self, folder: Path, records: Iterable[Mapping], seconds: float) -> None:
        from tensorboardX import SummaryWriter  # an extra

        for earlier in folder.glob("events.out.tfevents.*"):
            if earlier.stat().st_size == 0:
                earlier.unlink()
            else:
                os.truncate(earlier, 0)
        self._writer = SummaryWriter(str(folder), purge_step=0, flush_secs=10)
        self._begin, self._seconds = time.time() - seconds, 0.0
        for record in records:
            self.add(record)

    def add(self, record: Mapping) -> None:
        """Add a record of the log; a figure that is not finite is left out."""
        self._seconds = record.get("seconds", self._seconds)  # older logs have it here and there
        for name, tag in TAGS.items():
            if record.get(name) is not None:
                place = {"global_step": record["step"], "walltime": self._begin + self._seconds}
                self._writer.add_scalar(tag, record[name], **place)

    def close(self) -> None:
        """Write what has not been written yet."""
        self._writer.close()
