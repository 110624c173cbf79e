"""What a program asks of the device: launches, waits and transfers, each with the line that asks.

A launch is whatever the host hands over: an elementwise kernel, a reduction, a product, a copy on
the device, memory that is set to zero, a kernel of one's own. A call of a library (sorting, a scan)
counts once, whatever it starts.
"""

import sys
import threading
from collections import Counter
from pathlib import Path

HERE = str(Path(__file__).parent)
ROOT = Path(__file__).parents[2]


class Counters(threading.local):
    """Of one thread. ``waits`` are those of all threads, in order; a list of what was asked for."""

    waits: list[str] = []

    def __init__(self):
        self.clear()

    def clear(self):
        """Begin to count anew."""
        self.waits.clear()
        self.asked = Counter()  # (kind, what, place): how often
        self.transferred = Counter()  # up, down: bytes
        self.computed = 0  # launches, for those who wait for them

    def launch(self, what, number=1):
        self.computed += number
        self.asked["launch", what, _place()] += number

    def wait(self, what):
        self.waits.append(what)
        self.asked["wait", what, _place()] += 1

    def upload(self, nbytes):
        self.asked["upload", f"{nbytes} bytes", _place()] += 1
        self.transferred["up"] += nbytes

    def download(self, nbytes):
        self.asked["download", f"{nbytes} bytes", _place()] += 1
        self.transferred["down"] += nbytes

    def total(self, kind):
        """How many there were: of "launch", "wait", "upload" or "download"."""
        return sum(number for (one, *_), number in self.asked.items() if one == kind)

    def report(self, kind=None):
        """A line for each place that asked, the most frequent first."""
        lines = []
        for (one, what, (file, line)), number in self.asked.most_common():
            if kind in (None, one):
                path = Path(file)
                name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
                lines.append(f"{number:6} {one:8} {what:14} {name}:{line}")
        return "\n".join(lines)


def _place():
    """File and line of the first frame outside this package."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


counters = Counters()
