"""Passes in Python's threads, and the limit of the BLAS: forks, ends, threads that are refused."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from common import kernels
from common.averaging import WeightAverage
from common.kernels import threads
from common.kernels.threads import one_blas_thread, over_rows

needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    monkeypatch.setattr(threads, "BLOCK_ELEMENTS", 64)
    threads._pool.cache_clear()
    yield
    threads._pool().shutdown()
    threads._pool.cache_clear()


def blas_threads():
    return {blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"}


@pytest.mark.parametrize("shape", [(1,), (1000, 3), (7, 100_000), (0, 4)])
def test_every_row_is_visited_once(shape):
    visits = np.zeros(shape)

    def work(rows):
        visits[rows] += 1

    over_rows(work, visits)
    assert (visits == 1).all()


def test_small_products_run_on_one_thread_and_large_ones_as_before():
    x = np.zeros((20, 100))
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with kernels.one_thread_if_small(x, np.zeros((100, 400))):
            assert blas_threads() == {1}
        with kernels.one_thread_if_small(x, np.zeros((100, 4000))):
            assert blas_threads() == before == {2}
        assert blas_threads() == before


def test_an_error_in_a_thread_reaches_the_caller():
    def work(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        over_rows(work, np.zeros((10, 1 << 17)))


def test_a_row_is_visited_once_where_no_thread_can_be_started(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    visits = np.zeros((1000, 3))

    def work(rows):
        visits[rows] += 1

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        over_rows(work, visits)
    assert (visits == 1).all()
    for _ in range(2):  # what was asked for in vain is not done later
        over_rows(work, visits)
    assert (visits == 3).all()


def test_work_that_no_thread_takes_is_not_kept(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    def visit():
        visits = np.zeros((1000, 3))

        def work(rows):
            visits[rows] += 1

        over_rows(work, visits)
        return weakref.ref(visits)

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", start)
        visited = [visit() for _ in range(5)]
    gc.collect()
    assert [array() is None for array in visited] == [True] * 5


AFTER_THE_MAIN_THREAD = """
import threading
import numpy as np
from common.kernels import threads
threads.num_threads = lambda: 2
threads.BLOCK_ELEMENTS = 64
visits = np.zeros((1000, 3))
def work(rows):
    visits[rows] += 1
def later():
    main.join()
    threads.over_rows(work, visits)
    threads.over_rows(work, visits)
    print((visits == 2).all())
main = threading.main_thread()
threading.Thread(target=later).start()
"""


def test_a_thread_that_outlives_the_main_thread_can_go_on():
    command = [sys.executable, "-c", AFTER_THE_MAIN_THREAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def _in_child(function, answers):
    answers.put(function())


def child_of_a_fork(function):
    """What the function returns in a child process."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(function, answers), daemon=True)
    child.start()
    child.join(120)
    try:
        assert child.exitcode == 0, "the child hangs or has failed"
    finally:
        child.kill()
    return answers.get()


def averaged():
    weights = np.ones((1000, 3))
    average = WeightAverage([weights])
    for value in (1, 2, 3):
        weights[...] = value
        average.update()
    return average.averages[0]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    expected = averaged()  # the parent has its threads by now
    np.testing.assert_array_equal(child_of_a_fork(averaged), expected)
    np.testing.assert_allclose(expected, 2)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_limit_of_another_thread_ends_with_a_fork():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with one_blas_thread():
            entered.set()
            leave.wait()

    with threadpool_limits(2, user_api="blas"):
        holder = threading.Thread(target=hold)
        holder.start()
        entered.wait()
        try:
            assert child_of_a_fork(blas_threads) == {2}
            with one_blas_thread():
                assert child_of_a_fork(blas_threads) == {1}  # the limit of the one that forks
        finally:
            leave.set()
            holder.join()
        assert blas_threads() == {2}


def test_the_last_thread_to_leave_lifts_the_limit_of_the_blas():
    with threadpool_limits(2, user_api="blas"):
        first, second = one_blas_thread(), one_blas_thread()
        with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
            a.submit(first.__enter__).result()
            b.submit(second.__enter__).result()
            a.submit(first.__exit__, None, None, None).result()
            assert blas_threads() == {1}
            b.submit(second.__exit__, None, None, None).result()
            assert blas_threads() == {2}
        with one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {2}


@pytest.mark.parametrize("set_by_then", [False, True])
def test_ctrl_c_while_the_limit_is_lifted_lifts_it_all_the_same(set_by_then, monkeypatch):
    set_threads = threads._set_threads
    interrupted = []

    def interrupt_once(library, number):
        if number == 1 or interrupted:
            set_threads(library, number)
            return
        interrupted.append(library)
        if set_by_then:
            set_threads(library, number)
        raise KeyboardInterrupt

    with threadpool_limits(2, user_api="blas"):
        monkeypatch.setattr(threads, "_set_threads", interrupt_once)
        with pytest.raises(KeyboardInterrupt), one_blas_thread():
            assert blas_threads() == {1}
        assert len(interrupted) == 1
        assert blas_threads() == {2}
        assert not threads._limit.entries
        with one_blas_thread():  # nor does it count for the next
            assert blas_threads() == {1}
        assert blas_threads() == {2}


def test_a_number_of_threads_that_no_machine_has_is_cut():
    code = "from common import kernels; print(kernels.num_threads())"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1000000"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{threads.MOST_THREADS}\n"
