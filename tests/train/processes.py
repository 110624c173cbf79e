"""Training scripts as processes of their own, on a text of moments, and what they left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.builders import PATIENCE

ROOT = Path(__file__).parents[2]
TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 120
SIZES = {"wordvec-size": 8, "hidden-size": 8, "batch-size": 4, "time-size": 7, "log-interval": 9}
TIMES = {"ms_per_iteration", "tokens_per_second", "seconds"}


class Process(subprocess.Popen):
    """``python -m train.SCRIPT``, held at places of its run; ``tests.train.held`` has their names.

    Args:
        script: name of a module in ``train``.
        arguments: of its command line.
        places: (place, number) where it waits, or (place, number, False) where it only tells.
        largest_file: bytes that a file may hold, 0 for no limit.
    """

    def __init__(self, script, *arguments, places=(), largest_file=0):
        self.connection, of_child = socket.socketpair()
        self.connection.settimeout(PATIENCE)
        waits = json.dumps(
            [(place, number, not wait or wait[0]) for place, number, *wait in places]
        )
        options = [str(of_child.fileno()), str(largest_file), waits, f"train.{script}"]
        with of_child:
            super().__init__(
                [sys.executable, "-m", "tests.train.held", *options, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                pass_fds=[of_child.fileno()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"},
            )

    def wait_for_place(self):
        """Return once it has come to the next of its places."""
        if not self.connection.recv(1):
            code, _, err = finish(self)
            raise AssertionError(f"ended with {code} before it came to a place: {err}")

    def go_on(self):
        """Let it leave the place where it waits."""
        self.connection.sendall(b".")

    def ask_to_stop(self, signum):
        """Send it a signal where it waits; return once it has said that it will stop."""
        self.send_signal(signum)
        while (line := self.stderr.readline()) != "stopping here; once more stops at once\n":
            assert line, "it has ended"


def new_run(text_file, out, **options):
    """The arguments of a new run of a tiny model."""
    sizes = {"corpus": text_file, "out": out, **SIZES, **options}
    return [part for name, value in sizes.items() for part in (f"--{name}", value)]


def finish(process):
    """Exit code, stdout and stderr, once it has ended."""
    out, err = process.communicate(timeout=PATIENCE)
    process.connection.close()
    return process.returncode, out, err


def run(script, *arguments, **limits):
    """The same of a process that is not held."""
    return finish(Process(script, *arguments, **limits))


def log_of(folder):
    """log.jsonl without the figures that a clock gives."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def expect_same_run(a, b):
    """Fails unless two run folders hold the same weights, bit for bit, the same log and results."""
    first, second = (load_file(folder / "weights.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], strict=True)
    assert log_of(a) == log_of(b)
    results = [json.loads((folder / "results.json").read_text()) for folder in (a, b)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    assert sorted(file.name for file in a.iterdir()) == sorted(file.name for file in b.iterdir())
