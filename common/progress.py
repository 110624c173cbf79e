"""What a training loop adds up between two reports, and its status line."""

from __future__ import annotations

import math
import time
from typing import Any

from common.np import Array, np

__all__ = ["Progress", "Record", "print_record"]

Record = dict[str, float]


class Progress:
    """Adds up losses between two reports; the loss stays where it is until it is read.

    ``go_on`` starts the clock and ``pause`` stops it, so that what is done between two iterations
    does not count as training.
    """

    def __init__(self) -> None:
        self.total: Array = 0.0
        self.targets = self.iterations = 0
        self.seconds = 0.0
        self._since = time.perf_counter()

    def go_on(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        self.seconds += time.perf_counter() - self._since
        self._since = time.perf_counter()

    def add(self, loss: Array, targets: int) -> None:
        """Count one iteration with its mean ``loss`` over so many targets."""
        self.total = self.total + loss * targets
        self.targets += targets
        self.iterations += 1

    def record(self) -> Record:
        """Loss, perplexity and speed since the last record; begins anew."""
        loss = float(self.total) / self.targets  # waits for the device
        self.pause()
        record = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700)),  # exp(710) is past float64
            "ms_per_iteration": 1000 * self.seconds / self.iterations,
            "tokens_per_second": self.targets / self.seconds,
        }
        self.__init__()  # type: ignore[misc]
        return record

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, the loss in its own dtype."""
        return {
            "total": np.array(self.total),
            "targets": self.targets,
            "iterations": self.iterations,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.total = np.asarray(state["total"])[()]
        self.targets, self.iterations = int(state["targets"]), int(state["iterations"])
        self.seconds = float(state["seconds"])


def print_record(record: Record) -> None:
    """Print one status line."""
    print(
        f"| epoch {record['epoch']:.0f} "
        f"| iteration {record['iteration']:.0f} / {record['iterations']:.0f} "
        f"| lr {record['lr']:.4g} "
        f"| {record['ms_per_iteration']:.1f} ms/it "
        f"| {record['tokens_per_second']:,.0f} tokens/s "
        f"| perplexity {record['perplexity']:.2f}",
        flush=True,
    )
