"""The double of CuPy refuses what CuPy refuses, rounds as it does, and counts what it is asked."""

import copy
import pickle

import numpy
import pytest

from tests import cupy_double
from tests.cupy_double import counters

cupy = cupy_double.module()


@pytest.fixture(autouse=True)
def _count_anew():
    counters.clear()


def ones(*shape, dtype="float32"):
    return cupy.ones(shape, dtype=dtype)


# ---- what is refused ----

HOST = numpy.ones(3, dtype="float32")
REFUSED = {
    "conversion": lambda: numpy.asarray(ones(3)),
    "operator": lambda: ones(3) + HOST,
    "operator with the host's on the left": lambda: HOST * ones(3),
    "in place": lambda: ones(3).__iadd__(HOST),
    "function": lambda: cupy.tanh(HOST),
    "out": lambda: cupy.tanh(ones(3), out=HOST),
    "list": lambda: cupy.maximum(ones(3), [1, 2, 3]),
    "where": lambda: cupy.where(ones(3) > 0, HOST, 0),
    "product": lambda: ones(3) @ HOST,
    "concatenate": lambda: cupy.concatenate([ones(3), HOST]),
    "contiguous": lambda: cupy.ascontiguousarray(HOST),
    "length of a number": lambda: len(ones()),
    "keyword": lambda: cupy.concatenate([ones(3)], where=True),
    "keyword of a method": lambda: ones(3).sum(initial=3),
    "too many arguments": lambda: cupy.zeros(3, "float32", "C", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cupy_refuses_is_a_type_error(case):
    with pytest.raises(TypeError):
        REFUSED[case]()


def test_an_array_of_the_host_is_not_assigned():
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        ones(3)[...] = HOST
    with pytest.raises(ValueError, match="non-scalar"):
        ones(3)[:2] = [1, 2]


def test_a_name_that_cupy_does_not_have_is_not_there():
    for name in ("scatter_add", "float128", "nditer"):
        with pytest.raises(AttributeError, match=rf"CuPy 14\S* has no cupy\.{name}"):
            getattr(cupy, name)
    with pytest.raises(AttributeError, match="no __array_interface__"):
        ones(3).__array_interface__  # noqa: B018
    assert not hasattr(ones(3).flags, "writeable")


def test_a_name_that_only_the_double_does_not_have_says_so():
    with pytest.raises(NotImplementedError, match=r"cupy\.einsum: CuPy has it"):
        cupy.einsum  # noqa: B018
    with pytest.raises(NotImplementedError, match=r"cupy\.ndarray\.diagonal"):
        ones(2, 2).diagonal()


def test_an_index_that_occurs_twice_with_two_values_is_an_error():
    table, ids = ones(4), cupy.asarray([1, 1])
    table[ids] = ones(2)
    with pytest.raises(RuntimeError, match="an index occurs twice"):
        table[ids] = cupy.asarray([3.0, 4.0], dtype="float32")


# ---- what comes out otherwise than from NumPy ----


def test_an_index_out_of_range_wraps_around():
    x = cupy.arange(5)
    assert x[cupy.asarray([5, -1, -7])].tolist() == [0, 4, 3]
    assert x.take(cupy.asarray([6])).tolist() == [1]
    x[cupy.asarray([7])] = 9
    assert x.tolist() == [0, 1, 9, 3, 4]
    with pytest.raises(IndexError):
        x[5]  # a number is looked at


def test_new_memory_is_taken_for_nothing():
    assert numpy.isnan(cupy.empty((2, 3)).get()).all()
    assert numpy.isnan(cupy.empty(8, dtype="uint8").view("float32").get()).all()
    assert (cupy.empty(3, dtype="int32").get() > 1 << 30).all()


def test_sums_of_segments_are_differences_of_one_running_sum():
    x = cupy.asarray(numpy.array([1e8, 0.1, 0.2], dtype="float32"))
    sums = cupy.add.reduceat(x, cupy.asarray([0, 1])).get()
    assert sums[0] == 1e8
    assert sums[1] == 0


def test_a_running_sum_is_summed_by_halves():
    x = numpy.random.default_rng(1).standard_normal(1500).astype("float32")
    found = cupy.asarray(x).cumsum().get()
    assert not (found == x.cumsum()).all()
    numpy.testing.assert_allclose(found, x.astype("float64").cumsum(), atol=1e-4)


DTYPES = {
    "weak number": (lambda: ones(3) * 0.1, "float32"),
    "whole number": (lambda: ones(3) ** 2, "float32"),
    "NumPy's number": (lambda: ones(3) * numpy.float64(2), "float64"),
    "NumPy's on the left": (lambda: numpy.float64(2) * ones(3), "float64"),
    "weak number of a higher kind": (lambda: ones(3, dtype="int32") * 0.5, "float64"),
    "array of no dimensions": (lambda: ones(3) * ones(dtype="float64"), "float64"),
    "division of integers": (lambda: ones(3, dtype="int32") / 2, "float64"),
    "function of integers": (lambda: cupy.tanh(ones(3, dtype="int64")), "float64"),
    "sum of booleans": (lambda: (ones(3) > 0).sum(), "int64"),
    "mean": (lambda: ones(3).mean(dtype="float64"), "float64"),
    "square in": (lambda: cupy.square(ones(3), dtype="float64"), "float64"),
    "where": (lambda: cupy.where(ones(3) > 0, ones(3), 0), "float32"),
    "booleans times": (lambda: ones(3) * (ones(3) > 0), "float32"),
    "comparison": (lambda: ones(3) > 0, "bool"),
    "argmax": (lambda: ones(3).argmax(), "int64"),
}


@pytest.mark.parametrize("case", DTYPES)
def test_a_result_has_the_dtype_that_cupy_gives_it(case):
    compute, expected = DTYPES[case]
    assert compute().dtype == expected


def test_division_by_zero_warns_nobody():
    assert numpy.isnan((cupy.zeros(1) / 0).get()).all()


# ---- what is counted ----

LAUNCHES = {
    "elementwise": (lambda x: x + 1, 1),
    "in place": (lambda x: x.__iadd__(1), 1),
    "chain": (lambda x: 0.5 * (1 + cupy.tanh(0.5 * x)), 4),
    "out": (lambda x: cupy.tanh(x, out=x), 1),
    "out in another view of the same memory": (lambda x: cupy.tanh(x[...], out=x[...]), 2),
    "view": (lambda x: x.reshape(-1).reshape(3, 4).T.swapaxes(0, 1)[1:], 0),
    "copy by reshape": (lambda x: x.T.reshape(-1), 1),
    "sum": (lambda x: x.sum(axis=0), 1),
    "product": (lambda x: x @ x.T, 1),
    "product of what lies in no order": (lambda x: x[:, ::2] @ x[:2], 2),
    "fill": (lambda x: x.__setitem__(..., 0), 1),
    "assign": (lambda x: x.__setitem__(slice(1), ones(4)), 2),
    "assign to itself": (lambda x: x.__setitem__(..., x), 0),
    "rows": (lambda x: x[cupy.arange(2)], 2),
    "nothing": (lambda x: x[:0] + 1, 0),
}


@pytest.mark.parametrize("case", LAUNCHES)
def test_launches_are_counted(case):
    run, expected = LAUNCHES[case]
    x = ones(3, 4)
    counters.clear()
    run(x)
    assert counters.total("launch") == expected
    assert counters.waits == []
    assert counters.total("upload") == 0


def test_waits_and_transfers_are_counted_with_the_line_that_asks():
    x = cupy.asarray(HOST)
    assert float(x.sum()) == 3
    x.get()
    assert counters.waits == ["float", "get"]
    assert dict(counters.transferred) == {"up": 12, "down": 16}
    (line,) = counters.report("upload").splitlines()
    assert line.split()[:4] == ["1", "upload", "12", "bytes"]
    assert "tests/test_cupy_double.py:" in line
    x[numpy.array([0])]
    assert counters.total("upload") == 2
    x[x > 0]
    assert counters.waits == ["float", "get", "mask"]


def test_the_report_has_the_most_frequent_first():
    x = ones(3)
    for _ in range(3):
        x += 1
    first, *_ = counters.report().splitlines()
    assert first.split()[:3] == ["3", "launch", "add"]


def test_copies_stay_on_the_device_and_a_pickle_does_not():
    x = ones(3)
    assert copy.deepcopy(x).tolist() == [1, 1, 1]
    counters.clear()
    assert pickle.loads(pickle.dumps(x)).tolist() == [1, 1, 1]
    assert counters.waits == ["pickle", "tolist"]


# ---- kernels of one's own ----


@pytest.fixture
def header():
    found = pytest.importorskip("tests.cuda_on_cpu", reason="CUDA C runs by tests.cuda_on_cpu")
    if found.compiler() is None:
        pytest.skip("CUDA C runs by a C++ compiler, and there is none")


@pytest.mark.usefixtures("header")
def test_an_elementwise_kernel_computes_an_expression_in_one_launch():
    kernel = cupy.ElementwiseKernel("T x, T y, float64 a", "T z", "z = a * x + y * y", "axpy")
    x = cupy.asarray(numpy.arange(6, dtype="float32").reshape(2, 3))
    row = cupy.asarray(numpy.array([1, 2, 3], dtype="float32"))
    counters.clear()
    z = kernel(x, row, 0.5)
    assert counters.total("launch") == 1
    assert counters.waits == []
    assert z.dtype == "float32"
    assert z.tolist() == [[1, 4.5, 10], [2.5, 6, 11.5]]
    out = cupy.empty((3, 2), dtype="float32").T
    assert kernel(x, row, 0.5, out) is out
    assert out.tolist() == z.tolist()
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel(x, numpy.ones(3), 0.5)


@pytest.mark.usefixtures("header")
def test_a_raw_kernel_gets_the_arrays_and_the_sizes():
    code = """extern "C" __global__ void reverse(const float *x, float *y, int64_t n)
    { const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
      if (i < n) y[i] = x[n - 1 - i]; }"""
    x = cupy.arange(5, dtype="float32")
    y = cupy.empty(5, dtype="float32")
    counters.clear()
    for kernel in (
        cupy.RawKernel(code, "reverse"),
        cupy.RawModule(code=code).get_function("reverse"),
    ):
        kernel((1,), (8,), (x, y, numpy.int64(5)))
        assert y.tolist() == [4, 3, 2, 1, 0]
    assert counters.total("launch") == 2
