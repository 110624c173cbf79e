"""Matrix products by the threads of all compiled kernels.

The threads of a BLAS go on spinning for some hundredths of a second after each product, in case
another one comes. Until then they take a core away from everything else that has threads, and where
another program wants a core too, they wait for each other. Here nothing spins for long.
"""

from __future__ import annotations

import numpy

from common import native
from common.np import Array, np
from common.parallel import num_threads

__all__ = ["product"]

SMALL = 1 << 22  # multiply-adds that take about as long as waking a thread


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """``a @ b`` of matrices (M, K) and (K, N), in ``out`` (M, N) if given.

    Compiled for float32 on the CPU where each of them, or its transpose, is contiguous and ``out``
    is; else by NumPy or CuPy.
    """
    (M, K), N = a.shape, b.shape[1]
    C = np.empty((M, N), dtype=a.dtype) if out is None else out
    kernels = native.library(native.in_order(a), native.in_order(b), C)
    if kernels is None or M < native.FEW_ROWS or min(K, N) == 0:
        return np.matmul(a, b, out=C)
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

