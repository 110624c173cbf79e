"""Ctrl-C, SIGTERM, a terminal that closes: what a run does when it is told to stop.

The first signal asks it to stop where it can go on later, the second ends it.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopSignals", "Stopped"]

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.append(signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The run has been told to stop; ``exit_code`` is what a shell expects then."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class StopSignals:
    """Within ``with StopSignals() as stop`` a first signal is noted, a second raises Stopped.

    The run asks ``stop.received`` where it can stop. Outside the main thread, where Python allows
    no handlers, nothing is ever received. A signal that was ignored stays ignored (nohup).

    Attributes:
        received: the first signal, or None.
        at_once: set where there is nothing to finish: the first signal raises, too.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                before = signal.getsignal(signum)
                if before not in (signal.SIG_IGN, None):
                    self._before[signum] = before
                    signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.at_once or self.received is not None:
            raise Stopped(signum)
        self.received = signum
        # print() may be what was interrupted, and does not let itself be called again then.
        with suppress(OSError):  # nobody may read it any more
            os.write(2, b"\nstopping here; once more stops at once\n")

    def check(self) -> None:
        """Raise Stopped if a signal has been received."""
        if self.received is not None:
            raise Stopped(self.received)
