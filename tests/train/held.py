"""A training script that stops at places of its own run and waits for what is done to it there.

python -m tests.train.held DESCRIPTOR LARGEST_FILE PLACES train.SCRIPT ARGUMENTS...

Through the socket DESCRIPTOR goes one byte at each of PLACES, and one comes back to go on; the
parent can kill the process meanwhile, or send it a signal. PLACES is JSON, a list of (place,
number, wait): when the run comes to ``place`` for the ``number``-th time; without ``wait`` it tells
and runs on. Places are

- ``update``: before the optimizer changes the weights; ``validation``: before a text is measured;
- ``checkpoint.safetensors``, ``config.json`` and so on: the file is written beside its place, and
  is about to be renamed; ``half of FILE``: half of it is written;
- ``half a line of log.jsonl``.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import optimizer
from common.perplexity import protocols


class Places:
    """Counts how often the run comes to each place, and holds it where that was asked for."""

    def __init__(self, places: list[tuple[str, int, bool]], parent: socket.socket) -> None:
        self.waits = {(place, number): wait for place, number, wait in places}
        self.parent = parent
        self.counts: Counter[str] = Counter()

    def reach(self, place: str, prepare: Callable[[], None] = lambda: None) -> None:
        """Count; where the run is held ``prepare`` leaves behind what a kill there would."""
        self.counts[place] += 1
        wait = self.waits.get((place, self.counts[place]))
        if wait is None:
            return
        prepare()
        self.parent.sendall(b".")
        # A signal may reach any thread; Python handles it between two looks.
        while wait and not select.select([self.parent], [], [], 0.01)[0]:
            pass
        if wait and not self.parent.recv(1):
            os._exit(99)  # whoever has started this process is gone

    def before_each_call(self, owner: Any, name: str, place: str) -> None:
        """Every call of the function comes to ``place`` first."""
        function = getattr(owner, name)

        def reaching(*arguments: Any, **options: Any) -> Any:
            self.reach(place)
            return function(*arguments, **options)

        setattr(owner, name, reaching)

    def watch_files(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook: told of each file that is opened or renamed, before it is."""
        if event == "os.rename":
            written, file = arguments[0], Path(os.fsdecode(arguments[1])).name
            half = os.stat(written).st_size // 2
            self.reach(f"half of {file}", lambda: os.truncate(written, half))
            self.reach(file)
        elif event == "open" and str(arguments[0]).endswith("log.jsonl") and arguments[1] == "a":
            self.reach("half a line of log.jsonl", lambda: _append_half_a_line(arguments[0]))


def _append_half_a_line(path: str | os.PathLike) -> None:
    with open(path, "ab") as file:
        file.write(b'{"epoch": 1, "itera')


def main() -> None:
    descriptor, largest_file, places, module = sys.argv[1:5]
    del sys.argv[1:5]
    # Signals reach it even where whoever started the tests has switched them off for children, as
    # nohup does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if int(largest_file):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), resource.RLIM_INFINITY))
    held = Places(json.loads(places), socket.socket(fileno=int(descriptor)))
    held.before_each_call(optimizer.SGD, "update", "update")
    held.before_each_call(protocols, "eval_perplexity_exact", "validation")
    sys.addaudithook(held.watch_files)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
