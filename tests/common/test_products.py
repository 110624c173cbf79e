"""Products by the project's own threads."""

import numpy as np
import pytest

from common import native, products
from common.products import product
from tests.builders import floats, generator

SIZES = [(1, 1, 1), (7, 3, 5), (8, 1, 1), (9, 300, 17), (13, 700, 33), (1, 257, 100), (40, 20, 600)]


def matrices(M, K, N, a_turned, b_turned):
    rng = generator()
    a = floats(rng, K, M).T if a_turned else floats(rng, M, K)
    b = floats(rng, N, K).T if b_turned else floats(rng, K, N)
    return a.astype("float32", order="K"), b.astype("float32", order="K")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
def test_a_product_is_right_whatever_lies_across(size, a_turned, b_turned):
    a, b = matrices(*size, a_turned, b_turned)
    exact = a.astype("float64") @ b.astype("float64")
    np.testing.assert_allclose(product(a, b), exact, atol=2e-6 * size[1])
    out = np.full(exact.shape, np.nan, dtype="float32")
    assert product(a, b, out=out) is out
    np.testing.assert_array_equal(out, product(a, b))


@pytest.mark.skipif(native.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0")
def test_the_number_of_threads_changes_nothing(monkeypatch):
    monkeypatch.setattr(products, "SMALL", 0)
    a, b = matrices(50, 300, 700, False, True)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(products, "num_threads", lambda threads=threads: threads)
        found.append(product(a, b))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_another_dtype_is_computed_by_numpy(dtype):
    a, b = (x.astype(dtype) for x in matrices(4, 5, 6, False, False))
    found = product(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, a @ b)


def test_slices_that_are_not_contiguous_are_right_too():
    a, b = matrices(8, 10, 12, False, False)
    np.testing.assert_allclose(product(a[::2, ::2], b[1::2]), a[::2, ::2] @ b[1::2], atol=1e-5)


@pytest.mark.parametrize("size", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_to_multiply(size):
    a, b = matrices(*size, False, False)
    np.testing.assert_array_equal(product(a, b), a @ b)
