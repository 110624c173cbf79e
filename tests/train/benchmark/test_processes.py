"""A side in a process of its own answers calls, reports why it ended, and never outlives us."""

import io
import os
import pickle
import subprocess
import sys

import pytest

from tests.train.benchmark.small_models import SMALL, some_ids
from train.benchmark import processes
from train.benchmark.processes import SideProcess
from train.benchmark.workloads import SIDES, Sizes


@pytest.mark.parametrize("side", SIDES)
def test_every_side_builds_prepares_and_trains(side):
    if side.startswith("torch"):
        pytest.importorskip("torch", reason="compares with PyTorch")
    with SideProcess(side, some_ids(), 1, {}) as process:
        process.call("build", SMALL)
        assert process.call("prepare", "step", 1, 0) == {}
        assert process.call("seconds", "step", 2) > 0
        process.call("build", Sizes(N=2, T=3, D=5, H=7, V=20))  # larger than the text's vocabulary
        assert process.call("seconds", "step", 2) > 0
        assert process.call("peak_memory") > 1e6


def test_a_process_that_failed_is_named_with_the_last_lines_of_its_stderr():
    with SideProcess("time_layers", some_ids(), 1, {}) as process:
        with pytest.raises(RuntimeError, match=r"(?s)side 'time_layers' has ended.*Rnnlm: .* 0"):
            process.call("build", Sizes(H=0))
        with pytest.raises(RuntimeError, match="has ended"):
            process.call("build", SMALL)


def test_a_process_ends_when_its_stdin_is_closed():
    calls = pickle.dumps(some_ids()) + pickle.dumps(("build", (SMALL,)))
    command = [sys.executable, "-m", "train.benchmark.processes", "book", "1"]
    done = subprocess.run(command, input=calls, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert pickle.loads(done.stdout) is None


def test_what_the_library_prints_is_not_taken_for_an_answer(monkeypatch):
    answers = io.BytesIO()
    stdout = io.TextIOWrapper(answers)
    calls = pickle.dumps(some_ids()) + pickle.dumps(("build", (SMALL,)))
    monkeypatch.setattr(sys, "argv", ["processes", "book", "1"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(calls)))
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(processes.Server, "build", lambda self, sizes: print("noise") or "built")
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None, raising=False)
    processes.main()
    assert pickle.loads(answers.getvalue()) == "built"
