"""Products by the project's own threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from common import kernels
from common.kernels import blas_at_rest, product
from tests.builders import floats, generator

SIZES = [(1, 1, 1), (7, 3, 5), (8, 1, 1), (9, 300, 17), (13, 700, 33), (1, 257, 100), (40, 20, 600)]
SIZES += [(3, 50, 60), (1, 9, 3000)]

needs_kernels = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0"
)


def matrices(M, K, N, a_turned, b_turned):
    rng = generator()
    a = floats(rng, K, M).T if a_turned else floats(rng, M, K)
    b = floats(rng, N, K).T if b_turned else floats(rng, K, N)
    return a.astype("float32", order="K"), b.astype("float32", order="K")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_product_is_right_whatever_lies_across(size, a_turned, b_turned, with_bias):
    a, b = matrices(*size, a_turned, b_turned)
    exact = a.astype("float64") @ b.astype("float64")
    bias = floats(generator(), size[2]).astype("float32") if with_bias else None
    if with_bias:
        exact += bias
    np.testing.assert_allclose(product(a, b, bias=bias), exact, atol=2e-6 * size[1])
    out = np.full(exact.shape, np.nan, dtype="float32")
    assert product(a, b, out, bias) is out
    np.testing.assert_array_equal(out, product(a, b, bias=bias))


@needs_kernels
@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("turned", [False, True])
def test_the_number_of_threads_changes_nothing(rows, turned, monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_PRODUCT", 0)
    a, b = matrices(rows, 700, 500, False, turned)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        found.append(product(a, b))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (100, 1), (257, 600), (1000, 33)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_single_row_is_multiplied_by_several_threads(size, turned, threads, monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_MATRIX", 0)
    monkeypatch.setattr(kernels, "num_threads", lambda: threads)
    x, B = matrices(1, *size, False, turned)
    exact = x.astype("float64") @ B.astype("float64")
    np.testing.assert_allclose(product(x, B), exact, atol=2e-6 * size[0])


@needs_kernels
def test_while_the_kernels_work_the_threads_of_the_blas_rest():
    def threads():
        return {blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with blas_at_rest(np.zeros((2, 3), "float32").T):
            assert threads() == {1}
        with blas_at_rest(np.zeros((2, 3))):
            assert threads() == before == {2}
        assert threads() == before


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_another_dtype_is_computed_by_numpy(dtype):
    a, b = (x.astype(dtype) for x in matrices(4, 5, 6, False, False))
    found = product(a, b)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, a @ b)


@pytest.mark.parametrize("rows", [1, 8])
def test_slices_that_are_not_contiguous_are_right_too(rows):
    a, b = matrices(rows, 10, 12, False, False)
    np.testing.assert_allclose(product(a[:, ::2], b[1::2]), a[:, ::2] @ b[1::2], atol=1e-5)
    every_other = floats(generator(), 24).astype("float32")[::2]
    np.testing.assert_allclose(product(a, b, bias=every_other), a @ b + every_other, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 9])
def test_what_does_not_fit_is_refused(rows, monkeypatch):
    monkeypatch.setattr(kernels, "SMALL_MATRIX", 0)
    a, b = matrices(rows, 10, 12, False, False)
    read_only = np.zeros((rows, 12), "float32")
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        product(a, b[:-1])
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        product(a, b, out=np.zeros((rows, 11), "float32"))
    with pytest.raises(ValueError, match="read-only"):
        product(a, b, out=read_only)
    with pytest.raises(ValueError, match="broadcast"):
        product(a, b, bias=np.zeros(11, "float32"))
    assert not read_only.any()


@pytest.mark.parametrize("size", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_nothing_to_multiply(size):
    a, b = matrices(*size, False, False)
    np.testing.assert_array_equal(product(a, b), a @ b)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("form", ["compiled", "numpy"])
@pytest.mark.parametrize("inside", ["a", "b", "bias", "a, one place further"])
def test_the_result_may_lie_in_the_memory_of_what_is_multiplied(rows, form, inside, monkeypatch):
    if form == "numpy":
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    memory = floats(generator(), 40 * 40 + 1).astype("float32")
    a, b = matrices(rows, 40, 40, False, False)
    bias = floats(generator(), 40).astype("float32")
    a, b = a.copy(), b.copy()
    out = {"a": a, "b": b[:rows]}.get(inside)
    if inside == "bias":
        out = memory[: rows * 40].reshape(rows, 40)
        bias = out[-1]
    elif out is None:
        a, out = (memory[k : k + rows * 40].reshape(rows, 40) for k in (0, 1))
    expected = a.astype("float64") @ b + bias
    assert product(a, b, out=out, bias=bias) is out
    np.testing.assert_allclose(out, expected, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("rows", [2, 3, 4])
@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
def test_a_few_rows_are_multiplied_as_each_is_alone(rows, a_turned, b_turned):
    a, b = matrices(rows, 700, 500, a_turned, b_turned)
    alone = [product(a[row : row + 1].copy(), b) for row in range(rows)]
    np.testing.assert_array_equal(product(a, b), np.concatenate(alone))


BITS_OF_A_WINDOW = """
import hashlib, sys
import numpy as np
from common.time_layers import TimeAffine, TimeLSTM, TimeOutputWithLoss
rng = np.random.default_rng(0)
def floats(*shape):
    return (rng.standard_normal(shape) * 0.1).astype("float32")
N, T, H, V = 1, int(sys.argv[1]), 400, 3000
lstm = TimeLSTM(floats(H, 4 * H), floats(H, 4 * H), floats(4 * H), stateful=True)
output = TimeOutputWithLoss(TimeAffine(floats(H, V), floats(V)))
found = hashlib.sha256()
for _ in range(2):
    loss = output.forward(lstm.forward(floats(N, T, H)), rng.integers(0, V, (N, T)))
    lstm.backward(output.backward())
    found.update(np.float64(loss).tobytes() + b"".join(g.tobytes() for g in lstm.grads))
print(found.hexdigest())
"""


@needs_kernels
@pytest.mark.parametrize("steps", [3, 4, 9])
def test_a_window_of_few_rows_has_the_same_bits_on_any_number_of_threads(steps):
    found = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", BITS_OF_A_WINDOW, str(steps)]
        found.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(found) == 1
