"""The process of one side: reads a call a line from stdin, answers a line on stdout.

A process for each side, because the thread pools of OpenBLAS and PyTorch would disturb each other
in one; here one side sleeps while the other works.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from train.benchmark.floor import matrix_peak
from train.benchmark.works import Sizes

MODULES = {"ours": "ours", "torch": "rival", "torch_as_is": "rival", "book": "book"}


class Server:
    """What the parent may call; arguments and answers are JSON.

    Args:
        side: one of ``MODULES``.
        ids_file: what ``Ids.save`` wrote.
        threads: how many every pool may have.
    """

    def __init__(self, side: str, ids_file: str, threads: int) -> None:
        self.ids_file, self.threads = ids_file, threads
        self.module = importlib.import_module(f"train.benchmark.{MODULES[side]}")
        self.side: Any = None

    def build(self, sizes: dict[str, Any]) -> None:
        """Make a model of these sizes in place of the one before."""
        self.side = None
        gc.collect()
        wanted = Sizes(**sizes)
        ids = self.module.Ids.load(self.ids_file).stretched(wanted.V)
        self.side = self.module.Side(wanted, ids, self.threads)

    def prepare(self, kind: str, count: int, tries: int) -> dict[str, Any]:
        """Warm up and, with ``tries``, tune what the side can choose; returns the choices."""
        getattr(self.side, kind)(count)
        return self.side.tune(kind, count, tries) if tries else {}

    def seconds(self, kind: str, count: int) -> float:
        """How long ``count`` steps or tokens take."""
        work = getattr(self.side, kind)
        gc.collect()
        start = time.perf_counter()
        work(count)
        return time.perf_counter() - start

    def matrix_peak(self) -> float:
        """FLOP/s of the fastest product."""
        return matrix_peak(self.module.make_product)

    def peak_memory(self) -> int:
        """The most bytes of memory this process has had.

        Linux tells it in /proc; what ``getrusage`` says there begins at the size of the process
        that started this one.
        """
        status = Path("/proc/self/status")
        if status.exists():
            for line in status.read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return 1024 * int(line.split()[1])
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Serve until stdin is closed."""
    side, ids_file, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if hasattr(os, "sched_setaffinity"):  # so that threads of any kind keep to the number
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers, sys.stdout = sys.stdout, sys.stderr  # a stray print must not look like an answer
    server = Server(side, ids_file, threads)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answer = getattr(server, name)(**arguments)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
