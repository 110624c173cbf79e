"""What no implementation can be faster than: the products of a step at the machine's best rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from train.benchmark.works import Sizes

__all__ = ["matrix_peak", "step_flops"]

SHAPES = ((2048, 2048, 2048), (1024, 4096, 1024), (4096, 1024, 4096), (700, 650, 10_000))


def step_flops(sizes: Sizes) -> int:
    """Floating-point operations of the matrix products of one training step.

    A product (M, K) by (K, N) is 2 M K N operations. Each weight is in one product on the way
    forward and in two of the same size on the way back: its own gradient and that of its input.
    """
    rows, H = sizes.N * sizes.T, sizes.H
    widths = [sizes.D] + [H] * (sizes.L - 1)  # of what the recurrent layers read
    weights = sum((width + H) * sizes.num_gates * H for width in widths) + H * sizes.V
    return 3 * 2 * rows * weights


def matrix_peak(make_product: Callable[[int, int, int], Callable[[], object]]) -> float:
    """FLOP/s of the fastest of a few float32 products.

    Args:
        make_product: from M, K and N to a function that multiplies (M, K) by (K, N).
    """
    best = 0.0
    for M, K, N in SHAPES:
        product = make_product(M, K, N)
        product()
        for _ in range(8):
            start = time.perf_counter()
            product()
            best = max(best, 2 * M * K * N / (time.perf_counter() - start))
    return best
