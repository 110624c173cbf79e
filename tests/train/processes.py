"""Training scripts as processes of their own, on a text of moments, and what they left."""

import json
import os
import subprocess
import sys
import time

import numpy as np
from safetensors.numpy import load_file

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 120
SIZES = {"wordvec-size": 8, "hidden-size": 8, "batch-size": 4, "time-size": 7, "log-interval": 9}
TIMES = {"ms_per_iteration", "tokens_per_second", "seconds"}

# Ctrl-C reaches a process even where whoever started the tests has switched it off for children.
START = """
import resource, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
module, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
del sys.argv[1:3]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def start(script, *arguments, largest_file=0):
    """Start ``train.SCRIPT``; ``largest_file`` bytes is what a file may hold, 0 for no limit."""
    return subprocess.Popen(
        [sys.executable, "-c", START, f"train.{script}", str(largest_file), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"},
    )


def new_run(text_file, out, **options):
    """The arguments of a new run of a tiny model."""
    sizes = {"corpus": text_file, "out": out, **SIZES, **options}
    return [part for name, value in sizes.items() for part in (f"--{name}", value)]


def finish(process, timeout=300):
    """Exit code, stdout and stderr, once it has ended."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def run(script, *arguments, **limits):
    return finish(start(script, *arguments, **limits))


def wait_for(condition, process, seconds=30):
    """Wait until ``condition()``; False where the process ended before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    raise TimeoutError("the process neither got there nor ended")


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
