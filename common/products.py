"""Matrix products by the threads of all compiled kernels.

The threads of a BLAS go on spinning for some hundredths of a second after each product, in case
another one comes. Until then they take a core away from everything else that has threads, and where
another program wants a core too, they wait for each other. Here nothing spins for long.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy

from common import native
from common.np import Array, np
from common.parallel import num_threads, one_blas_thread

__all__ = ["blas_at_rest", "product"]

SMALL = 1 << 22  # multiply-adds that take about as long as waking a thread
SMALL_MATRIX = 1 << 18  # elements that are read in that time


def blas_at_rest(W: Array) -> AbstractContextManager:
    """Inside, products with ``W`` that are compiled have the cores to themselves.

    NumPy's products, small ones then, run on one thread, those of other threads of the program too.
    """
    compiled = native.library(native.in_order(W)) is not None
    return one_blas_thread() if compiled else nullcontext()


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b`` of matrices (M, K) and (K, N), in ``out`` (M, N) if given.

    Compiled for float32 on the CPU where each of them, or its transpose, is contiguous and ``out``
    is; else, and for few rows or a single one and a small matrix, by NumPy or CuPy.

    Raises:
        ValueError: where the shapes do not fit or ``out`` is read-only.
    """
    (M, K), N = a.shape, b.shape[1]
    C = np.empty((M, N), dtype=a.dtype) if out is None else out
    few = M < native.FEW_ROWS and (M != 1 or K * N < SMALL_MATRIX)
    if few or min(K, N) == 0 or len(b) != K or C.shape != (M, N):
        return np.matmul(a, b, out=C)
    kernels = native.library_to_write(C, native.in_order(a), native.in_order(b))
    if kernels is None:
        return np.matmul(a, b, out=C)
    if M == 1:
        work = numpy.empty((kernels.vector_parts(), N), dtype=numpy.float32)
        at = map(native.address, (a, b, C, work))
        kernels.vector_product(*at, *(stride // 4 for stride in b.strides), K, N, num_threads())
        return C
    threads = num_threads() if M * K * N >= SMALL else 1
    columns = kernels.panel_columns()
    panels = -(-N // columns)
    wide, depth = kernels.product_wide(), kernels.product_depth()
    parts = min(panels, threads * max(2, -(-panels // (wide * threads))))
    work = numpy.empty((threads, wide * depth, columns), dtype=numpy.float32)
    strides = [stride // 4 for stride in (*a.strides, *b.strides)]
    at = map(native.address, (a, b, C, work))
    kernels.product(*at, *strides, M, K, N, parts, threads)
    return C
