"""Who computes with how many threads: row blocks on all cores, small products on one."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy
from threadpoolctl import LibController, ThreadpoolController

from common.np import Array

__all__ = ["num_threads", "one_blas_thread", "one_thread_if_small", "over_rows"]

BLOCK_ELEMENTS = 1 << 17  # 512 KiB of float32: what one core's cache holds between two passes
SMALL_PRODUCT = 1 << 22  # multiply-adds; one core does them in about 0.1 ms


@functools.cache
def num_threads() -> int:
    """As many as the products use: OPENBLAS_NUM_THREADS, OMP_NUM_THREADS, or all cores."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal():
            return max(1, int(os.environ[name]))
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="over_rows")


def over_rows(work: Callable[[slice], None], array: Array) -> None:
    """Call ``work(rows)`` for slices that cover the rows of ``array`` once, in any order.

    On the CPU the slices are small and run in threads (NumPy's elementwise loops and the kernels
    need no interpreter's lock), on a GPU there is one. ``work`` must write to its own rows only;
    the result does then not depend on the threads.
    """
    num_rows = len(array)
    if not isinstance(array, numpy.ndarray):
        work(slice(0, num_rows))
        return
    block_rows = max(1, BLOCK_ELEMENTS * num_rows // max(1, array.size))

    def run(begin: int, end: int) -> None:
        for start in range(begin, end, block_rows):
            work(slice(start, min(start + block_rows, end)))

    parts = min(num_threads(), -(-num_rows // block_rows))
    if parts <= 1:
        run(0, num_rows)
        return
    edges = [num_rows * k // parts for k in range(parts + 1)]
    for done in [_pool().submit(run, a, b) for a, b in itertools.pairwise(edges)]:
        done.result()


@functools.cache
def _blas() -> list[LibController]:
    return ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Inside, NumPy's products run on one thread.

    ``ThreadpoolController.limit`` does the same, and asks each library for its name and version
    every time: half a millisecond.
    """
    before = [library.get_num_threads() for library in _blas()]
    for library in _blas():
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, threads in zip(_blas(), before, strict=True):
            library.set_num_threads(threads)


def one_thread_if_small(a: Array, b: Array) -> AbstractContextManager:
    """Inside, products run on one thread if ``a @ b``, one step's product, is a small one.

    Threads that share so little wait for each other longer than they work, and while another
    program holds a core, for a time slice in every step: the run is then ten times slower.
    """
    if isinstance(a, numpy.ndarray) and a.size * b.shape[1] < SMALL_PRODUCT:
        return one_blas_thread()
    return nullcontext()
