"""Threads for passes over arrays in Python, and how many the kernels and NumPy's BLAS use.

After a fork the child has none of the parent's threads, so the pool and the counts begin again.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy
from threadpoolctl import LibController, ThreadpoolController

from common.np import Array

__all__ = [
    "blas",
    "num_threads",
    "one_blas_thread",
    "over_rows",
    "threads_are_named",
    "usable_cores",
    "use_threads",
]

BLOCK_ELEMENTS = 1 << 17  # 512 KiB of float32: what one core's cache holds between two passes
MOST_THREADS = 63  # that c/threads.c starts
VARIABLES = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"  # by which a user names a number


@functools.cache
def num_threads() -> int:
    """As many as the products use: OPENBLAS_NUM_THREADS, OMP_NUM_THREADS, or all cores."""
    for name in VARIABLES:
        if os.environ.get(name, "").isdecimal():
            return min(max(1, int(os.environ[name])), MOST_THREADS)
    return min(len(usable_cores()), MOST_THREADS)


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return list(range(os.cpu_count() or 1))


def threads_are_named() -> bool:
    """Whether the user has named a number of threads."""
    return any(os.environ.get(name, "").isdecimal() for name in VARIABLES)


def use_threads(number: int) -> None:
    """Let kernels and BLAS use ``number`` threads from now on, here and in child processes."""
    os.environ[VARIABLES[0]] = str(number)
    num_threads.cache_clear()
    for library in blas():
        _set_threads(library, number)


# --- passes over rows


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="over_rows")


def over_rows(work: Callable[[slice], None], array: Array) -> None:
    """Call ``work(rows)`` for slices that cover the rows of ``array`` once, in any order.

    On the CPU the slices are small and run in threads (NumPy's elementwise loops and the kernels
    release the interpreter's lock), on a GPU there is one. ``work`` must write to its own rows
    only; the result then does not depend on the threads. Where no thread can be started, the
    calling one does all the work. What ``work`` raises is raised here, once all threads are done.
    """
    num_rows = len(array)
    if not isinstance(array, numpy.ndarray):
        work(slice(0, num_rows))
        return
    block_rows = max(1, BLOCK_ELEMENTS * num_rows // max(1, array.size))

    def run(begin: int, end: int) -> None:
        for start in range(begin, end, block_rows):
            work(slice(start, min(start + block_rows, end)))

    num_parts = min(num_threads(), -(-num_rows // block_rows))
    if num_parts <= 1:
        run(0, num_rows)
        return
    edges = [num_rows * k // num_parts for k in range(num_parts + 1)]
    parts = deque(itertools.pairwise(edges))
    results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def help_out() -> None:
        """Take parts until none is left: a helper that comes late finds nothing to do."""
        while True:
            try:
                begin, end = parts.popleft()
            except IndexError:
                return
            try:
                run(begin, end)
                results.put(None)
            except BaseException as error:
                results.put(error)

    for _ in range(num_parts - 1):
        try:
            _pool().submit(help_out)
        except RuntimeError:  # the limit is reached, or the main thread has ended
            _pool.cache_clear()  # in this one's queue the work would stand, and hold its arrays
            break
    help_out()
    errors = [results.get() for _ in range(num_parts)]
    for error in errors:
        if error is not None:
            raise error


# --- the threads of the BLAS


@functools.cache
def blas() -> list[LibController]:
    """The BLAS libraries of this process."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set_threads(library: LibController, threads: int) -> None:
    """Set the number, from any thread: from 3.8 on threadpoolctl obeys one until it is cleared."""
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(threads)
    if clear is not None:
        clear()


def _is_per_thread(library: LibController) -> bool:
    """Whether each thread of the program has a limit of its own."""
    return getattr(library, "threading_layer", None) == "openmp"


class _Limit:
    """One thread for the BLAS from the first ``enter`` to the last ``leave``, of any thread.

    An entry is any object. It counts until all that it changed is as before, so that ``leave`` can
    be called again where Ctrl-C has broken it off.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: dict[object, int] = {}  # and the thread of each
        self.before: list[int] = []

    def enter(self, entry: object) -> None:
        """Limit the BLAS for the calling thread."""
        me = threading.get_ident()
        with self.lock:
            is_first, is_my_first = not self.entries, me not in self.entries.values()
            if is_first:
                self.before = [library.get_num_threads() for library in blas()]
            self.entries[entry] = me
            for library in blas():
                if is_first or (is_my_first and _is_per_thread(library)):
                    _set_threads(library, 1)

    def leave(self, entry: object) -> None:
        """Lift the limit of an ``entry``; nothing to do where it is lifted already."""
        with self.lock:
            if entry in self.entries:
                me = self.entries[entry]
                others = [who for other, who in self.entries.items() if other is not entry]
                self._restore(is_last=not others, is_my_last=me not in others)
                del self.entries[entry]

    def forget_other_threads(self) -> None:
        """In a child process there is only the thread that forked."""
        self.lock = threading.Lock()
        me, were_some = threading.get_ident(), bool(self.entries)
        self.entries = {entry: who for entry, who in self.entries.items() if who == me}
        if were_some:
            self._restore(is_last=not self.entries, is_my_last=False)

    def _restore(self, is_last: bool, is_my_last: bool) -> None:
        for library, threads in zip(blas(), self.before, strict=True):
            if is_last or (is_my_last and _is_per_thread(library)):
                _set_threads(library, threads)


_limit = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, NumPy's products run on one thread, those of all threads of the program.

    ``ThreadpoolController.limit`` does the same for a single thread of the program, and asks each
    library for its name and version every time: half a millisecond.
    """
    entry = object()
    try:
        _limit.enter(entry)
        yield
    finally:
        try:
            _limit.leave(entry)
        except BaseException:  # Ctrl-C
            _limit.leave(entry)
            raise


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
    os.register_at_fork(after_in_child=_limit.forget_other_threads)
