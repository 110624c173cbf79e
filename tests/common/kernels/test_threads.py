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
from tests.builders import PATIENCE, floats, generator

pytestmark = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0"
)


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_PRODUCT", 0)
    monkeypatch.setattr(kernels, "num_threads", lambda: 3)


def system_threads():
    """Numbers of this process's threads; None where the system does not tell."""
    tasks = Path("/proc/self/task")
    return {int(task.name) for task in tasks.iterdir()} if tasks.exists() else None


@pytest.fixture
def matrices():
    rng = generator()
    return floats(rng, 60, 70).astype("float32"), floats(rng, 70, 500).astype("float32")


def test_after_a_pause_the_same_helpers_are_called_again(matrices):
    a, b = matrices
    expected = product(a, b)
    before = system_threads()
    assert before is None or len(before) >= 3
    for pause in (0, 0.05, 0, 0.001):  # with and without the time to fall asleep
        time.sleep(pause)
        np.testing.assert_array_equal(product(a, b), expected)
    assert before is None or system_threads() <= before  # one of an earlier test may have ended


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


def test_more_and_fewer_threads_in_turns(matrices, monkeypatch):
    a, b = matrices
    expected = product(a, b)
    for threads in (1, 4, 2, 7, 3, 100, 2):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        np.testing.assert_array_equal(product(a, b), expected)


def in_forked_child(work, *arguments):
    """What ``work`` returns in a child process, which at first has one thread."""
    context = multiprocessing.get_context("fork")
    ours, of_child = context.Pipe(duplex=False)
    child = context.Process(target=lambda: of_child.send(work(*arguments)), daemon=True)
    child.start()
    of_child.close()  # what it does not send it never will once it has ended
    assert ours.poll(PATIENCE)
    answer = ours.recv()
    child.join(PATIENCE)
    assert child.exitcode == 0
    return answer


needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def product_and_threads(matrices):
    at_first = system_threads()
    return product(*matrices), at_first, system_threads()


@needs_fork
@forks
def test_a_forked_process_starts_helpers_of_its_own(matrices):
    expected = product(*matrices)  # the parent has its helpers by now
    found, at_first, then = in_forked_child(product_and_threads, matrices)
    np.testing.assert_array_equal(found, expected)
    assert at_first is None or len(then - at_first) == 2


def cores_after_calls(matrices):
    product(*matrices)
    caller, cores = threading.get_native_id(), os.sched_getaffinity(0)
    helpers = system_threads() - {caller}
    for task in (caller, *helpers):
        os.sched_setaffinity(task, {min(cores)})
    alone = product(*matrices)  # nowhere else to go
    for task in helpers:
        os.sched_setaffinity(task, cores)
    found = []
    for _ in range(20):
        product(*matrices)
        found.append([os.sched_getaffinity(task) for task in helpers])
        time.sleep(0.001)  # asleep, it is woken on its caller's core more often
    return alone, cores, found


@needs_fork
@forks
@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores, and a system that tells of them",
)
def test_helpers_that_leave_the_core_of_their_caller_may_come_back(matrices):
    expected = product(*matrices)
    alone, cores, found = in_forked_child(cores_after_calls, matrices)
    np.testing.assert_array_equal(alone, expected)
    assert found == [[cores, cores]] * 20
