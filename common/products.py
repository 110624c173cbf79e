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

__all__ = ["affine", "blas_at_rest", "product"]

SMALL = 1 << 22  # multiply-adds that take about as long as waking a thread
SMALL_MATRIX = 1 << 18  # elements that are read in that time


def blas_at_rest(W: Array) -> AbstractContextManager:
    """Inside, products with ``W`` that are compiled have the cores to themselves.

    NumPy's products, small ones then, run on one thread, those of other threads of the program too.
    """
    compiled = native.library(native.in_order(W)) is not None
    return one_blas_thread() if compiled else nullcontext()


def product(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """``a @ b`` of matrices (M, K) and (K, N), in ``out`` (M, N) if given, plus ``bias`` (N,).

    Compiled for float32 on the CPU where each of them, or its transpose, is contiguous and ``out``
    and ``bias`` are; else, and for few rows that are not a single one, by NumPy or CuPy.

    Raises:
        ValueError: where the shapes do not fit or ``out`` is read-only.
    """
    (M, K), N = a.shape, b.shape[1]
    C = np.empty((M, N), dtype=a.dtype) if out is None else out
    if not (M == 1 or M >= native.FEW_ROWS) or len(b) != K or C.shape != (M, N) or C.size * K == 0:
        return _by_blas(a, b, C, bias)
    kernels = native.library_to_write(C, native.in_order(a), native.in_order(b))
    if kernels is None or not _fits(bias, N):
        return _by_blas(a, b, C, bias)
    (_row if M == 1 else _rows)(kernels, a, b, bias, C)
    return C


def affine(xs: Array, W: Array, b: Array, out: Array) -> None:
    """``out`` (T, N, H) becomes xs W + b for all steps in one product; xs (T, N, D), b (H,)."""
    rows = len(xs) * xs.shape[1]
    product(xs.reshape(rows, -1), W, out.reshape(rows, -1), b)


def _fits(bias: Array | None, N: int) -> bool:
    return bias is None or (bias.shape == (N,) and native.library(bias) is not None)


def _by_blas(a: Array, b: Array, C: Array, bias: Array | None) -> Array:
    np.matmul(a, b, out=C)
    if bias is not None:
        C += bias
    return C


def _row(kernels: native.Kernels, x: Array, B: Array, bias: Array | None, y: Array) -> None:
    """y = x B + bias for a single row."""
    (K, N), (row, column) = B.shape, B.strides
    x_at, B_at, bias_at, y_at = map(native.address, (x, B, bias, y))
    threads = num_threads() if K * N >= SMALL_MATRIX else 1
    kernels.vector_product(x_at, B_at, bias_at, y_at, row // 4, column // 4, K, N, threads)


def _rows(kernels: native.Kernels, A: Array, B: Array, bias: Array | None, C: Array) -> None:
    """C = A B + bias for more of them."""
    (M, K), N = A.shape, B.shape[1]
    threads = num_threads() if M * K * N >= SMALL else 1
    columns = kernels.panel_columns()
    panels = -(-N // columns)
    wide, depth = kernels.product_wide(), kernels.product_depth()
    parts = min(panels, threads * max(2, -(-panels // (wide * threads))))
    work = numpy.empty((threads, wide * depth, columns), dtype=numpy.float32)
    strides = [stride // 4 for stride in (*A.strides, *B.strides)]
    at = map(native.address, (A, B, bias, C, work))
    kernels.product(*at, *strides, M, K, N, parts, threads)
