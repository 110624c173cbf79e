"""The team of threads that all compiled kernels share: calls at once, forks, pauses."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from common import kernels
from common.kernels import product
from tests.builders import floats, generator

pytestmark = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0"
)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_PRODUCT", 0)
    monkeypatch.setattr(kernels, "num_threads", lambda: 3)


def num_system_threads():
    """Of this process; None where the system does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


@pytest.fixture
def matrices():
    rng = generator()
    return floats(rng, 60, 70).astype("float32"), floats(rng, 70, 500).astype("float32")


def test_after_a_pause_the_same_helpers_are_called_again(matrices):
    a, b = matrices
    expected = product(a, b)
    before = num_system_threads()
    assert before is None or before >= 3
    for pause in (0, 0.05, 0, 0.001):  # with and without the time to fall asleep
        time.sleep(pause)
        np.testing.assert_array_equal(product(a, b), expected)
    assert num_system_threads() == before


def test_calls_from_several_threads_at_once_are_all_right(matrices):
    a, b = matrices
    expected = product(a, b)
    wrong = []

    def work():
        for _ in range(200):
            if not np.array_equal(product(a, b), expected):
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and a system that tells of them",
)
def test_a_helper_leaves_the_core_of_its_caller(matrices):
    a, b = matrices
    product(a, b)
    mine = threading.get_native_id()
    cores = os.sched_getaffinity(0)
    others = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    others.remove(mine)
    here, there = sorted(cores)[:2]

    def core_of(task):
        return int(Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()[36])

    try:
        os.sched_setaffinity(mine, {here})
        for task in others:
            os.sched_setaffinity(task, {here})
        product(a, b)  # nowhere else to go, and right nevertheless
        for task in others:
            os.sched_setaffinity(task, {here, there})
        before = [task for task in others if core_of(task) == here]
        for _ in range(20):
            product(a, b)
            time.sleep(0.001)
        # two of them help; a thread of another kind may stay where it was
        moved = [task for task in before if core_of(task) == there]
        assert len(moved) >= 2
        assert all(os.sched_getaffinity(task) == {here, there} for task in others)
    finally:
        for task in (mine, *others):
            os.sched_setaffinity(task, cores)


def test_more_and_fewer_threads_in_turns(matrices, monkeypatch):
    a, b = matrices
    expected = product(a, b)
    for threads in (1, 4, 2, 7, 3, 100, 2):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        np.testing.assert_array_equal(product(a, b), expected)


def _product_in_child(matrices, answers):
    at_first = num_system_threads()
    found = product(*matrices)
    answers.put((found, at_first, num_system_threads()))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_helpers_of_its_own(matrices):
    expected = product(*matrices)  # the parent has its helpers by now
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_product_in_child, args=(matrices, answers), daemon=True)
    child.start()
    found, at_first, then = answers.get(timeout=60)
    np.testing.assert_array_equal(found, expected)
    assert at_first is None or then == at_first + 2
    child.join(60)
    assert child.exitcode == 0
