"""Rows, softmax with loss, passes over arrays and Philox in CUDA C, run on the CPU."""

import numpy as np
import pytest

from common.kernels import device, philox
from tests.common.kernels.cuda_device import SEEN, use, with_fault


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def order(request, monkeypatch):
    use(monkeypatch, descending=request.param)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


# --- rows of a table


def check_rows_are_added(ids_kind="int64", R=61, V=17, D=37, turned=False):
    rng = np.random.default_rng(1)
    ids, rows = rng.integers(0, V - 1, R).astype(ids_kind), floats(R, D)
    table = floats(V, D, seed=1)
    exact = table.astype("float64")
    np.add.at(exact, ids, rows)
    found = np.asfortranarray(table) if turned else table
    assert device.add_rows(found, ids, rows)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("ids_kind", ["int32", "int64"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("R", "D"), [(1, 1), (61, 37), (300, 5)])
def test_rows_are_added_to_those_of_their_ids(ids_kind, turned, R, D):
    check_rows_are_added(ids_kind, R, D=D, turned=turned)


def test_rows_of_one_id_are_added_in_their_order(monkeypatch):
    use(monkeypatch)
    table, rows = np.zeros((1, 1), "float32"), np.array([[1e8], [1], [-1e8], [1]], "float32")
    assert device.add_rows(table, np.zeros(4, int), rows)
    assert table[0, 0] == 1  # the second is lost beside the first, the last is not


# --- softmax with loss


def check_softmax(ids_kind="int64", N=3, T=4, V=1029, high=1.0, ignored=(1, 2), gradient=True):
    rng = np.random.default_rng(0)
    S, b = high * floats(T * N, V), high * floats(V, seed=1)
    ts = rng.integers(0, V, (N, T)).astype(ids_kind)
    if ignored:
        ts[ignored] = -1
    exact = S.astype("float64") + b
    exact -= exact.max(axis=1, keepdims=True)
    p = np.exp(exact)
    p /= p.sum(axis=1, keepdims=True)
    flat = ts.T.reshape(-1)
    counts = flat != -1
    rows = np.arange(T * N)
    losses = np.where(counts, -np.log(np.maximum(p[rows, flat], 1e-300)), 0)
    p[rows, flat] -= 1
    p *= (counts / max(counts.sum(), 1))[:, None]
    before = S.copy()
    loss, found = device.softmax_with_loss(S, b, ts, -1, gradient)
    np.testing.assert_allclose(found[:-1], losses, rtol=2e-6, atol=2e-6 * high)
    assert found[-1] == counts.sum()
    np.testing.assert_allclose(loss, losses.sum() / max(counts.sum(), 1), rtol=2e-6)
    if gradient:
        np.testing.assert_allclose(S, p, rtol=2e-5 * high, atol=2e-6 * abs(p).max())
    else:
        np.testing.assert_array_equal(S, before)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("ids_kind", ["int32", "int64"])
@pytest.mark.parametrize(("N", "T", "V"), [(1, 1, 1), (3, 4, 1029), (2, 3, 7), (5, 60, 33)])
@pytest.mark.parametrize("gradient", [False, True])
def test_the_loss_of_scores_and_their_gradient(ids_kind, N, T, V, gradient):
    check_softmax(ids_kind, N, T, V, ignored=(0, T // 2), gradient=gradient)


@pytest.mark.usefixtures("order")
def test_scores_far_apart_have_a_finite_loss():
    S, ts = np.array([[1000.0, 0, -1000], [0, 1000, 1000]], "float32"), np.array([[0, 0]])
    loss, losses = device.softmax_with_loss(S, np.zeros(3, "float32"), ts, -1, True)
    np.testing.assert_allclose(losses, [0, 1000 + np.log(2), 2], rtol=1e-6)
    np.testing.assert_allclose(loss, 500 + np.log(2) / 2, rtol=1e-6)
    np.testing.assert_allclose(2 * S, [[0, 0, 0], [-1, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("wrong", ["target", "score"])
def test_what_is_not_there_or_not_finite_makes_the_loss_nan(wrong, monkeypatch):
    use(monkeypatch)
    S, ts = floats(2, 5), np.array([[0, 5 if wrong == "target" else 1]])
    if wrong == "score":
        S[1, 3] = np.nan
    loss, _ = device.softmax_with_loss(S, np.zeros(5, "float32"), ts, -1, True)
    assert np.isnan(loss)


@pytest.mark.usefixtures("order")
def test_targets_that_are_all_ignored_cost_nothing():
    S = floats(6, 5)
    loss, _ = device.softmax_with_loss(S, floats(5), np.full((2, 3), -1), -1, True)
    assert loss == 0
    assert not S.any()


# --- passes over arrays

SIZES = [1, 37, 5003]


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("size", SIZES)
def test_passes_over_arrays(size):
    x, y, target, rate, pull = (floats(size, seed=seed) for seed in range(5))
    for change, right in (
        (lambda a: device.add_scaled(a, -0.3, y), x - np.float32(0.3) * y),
        (
            lambda a: device.descend(a, y, target, rate, pull),
            x - rate * y + pull * (target - x),
        ),
    ):
        found = x.copy()
        assert change(found)
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


def check_norm():
    arrays = [floats(size, seed=size) for size in (*SIZES, 40_000)]
    exact = np.sqrt(sum((x.astype("float64") ** 2).sum() for x in arrays))
    found = device.norm(arrays)
    np.testing.assert_allclose(found, exact, rtol=1e-12)
    assert found == device.norm(arrays)


@pytest.mark.usefixtures("order")
def test_the_norm_of_several_arrays():
    check_norm()


def check_clip(max_norm=0.25, size=5003):
    x = floats(size)
    length = device.norm([x])
    exact = x * min(max_norm / (float(length) + 1e-6), 1.0)
    assert device.clip(x, length, max_norm)
    np.testing.assert_allclose(x, exact, rtol=1e-6)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("max_norm", [0.25, 1e-30, 1e9, np.inf])
def test_gradients_are_shortened_to_a_norm(max_norm):
    check_clip(max_norm)


# --- Philox


def check_masks(ratio=0.4, shape=(3, 5, 37)):
    threshold, bits = philox.threshold_of(ratio)
    place = 0xFEDCBA9876543210, 3, 7, 2
    kept = device.philox_keep(shape, threshold, bits, *place)
    np.testing.assert_array_equal(kept.swapaxes(0, 1), philox.keep(ratio, shape, *place))


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.4])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 37), (7, 1, 300), (1, 1, 10_001)])
def test_masks_are_those_of_the_cpu(ratio, shape):
    check_masks(ratio, shape)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("steps", [1, 4])
def test_what_is_dropped_is_zero_and_the_rest_scaled(steps):
    x, kept = floats(4, 3, 37), np.random.default_rng(0).random((steps, 3, 37)) < 0.5
    found = np.empty_like(x)
    assert device.drop(x, kept, 1.25, found)
    np.testing.assert_array_equal(found, x * kept * np.float32(1.25))


# --- planted faults

CHECKS = {
    "rows": check_rows_are_added,
    "rows in order": lambda: check_rows_are_added(R=300, V=3),
    "softmax": check_softmax,
    "softmax of few classes": lambda: check_softmax(N=2, T=40, V=7, ignored=(1, 3)),
    "norm": check_norm,
    "clipping": check_clip,
    "masks": check_masks,
    "masks of bytes": lambda: check_masks(0.5),
}
IN_A_BLOCK = "        __syncthreads();\n        if (threadIdx.x < half)"
FAULTS = [
    ("rows", "if (first > 0 && ids[order[first - 1]] == id) return;", ""),
    ("rows", "for (int64_t d = threadIdx.x; d < D;", "for (int64_t d = threadIdx.x; d <= D;"),
    ("rows in order", "k < R && ids", "k < R - 1 && ids"),
    ("rows", "k = first; k < R", "k = first + 1; k < R"),
    ("softmax", IN_A_BLOCK, "        if (threadIdx.x < half)"),
    ("softmax", "    __syncthreads();\n    return shared[0];", "    return shared[0];"),
    ("softmax", "half = blockDim.x / 2; half > 0", "half = blockDim.x / 2; half > 1"),
    ("softmax", "v = threadIdx.x; v < V", "v = threadIdx.x; v <= V"),
    ("softmax", "own.sum = own.sum * fast_exp(own.most - score) + 1.0f;", "own.sum += 1.0f;"),
    ("softmax of few classes", "k = threadIdx.x; k < R", "k = threadIdx.x; k < R - 1"),
    ("softmax", "r % N * to_n + r / N * to_t", "r % N * to_t + r / N * to_n"),
    ("norm", IN_A_BLOCK, "        if (threadIdx.x < half)"),
    ("norm", "end = min(begin + CHUNK, length)", "end = begin + CHUNK"),
    ("clipping", "threadIdx.x; i < length;\n", "threadIdx.x; i <= length;\n"),
    ("clipping", "rate >= 1.0", "rate >= 1e12"),
    ("masks", "if (t >= T) return;", ""),
    ("masks", "if (i >= N * blocks) return;", ""),
    ("masks of bytes", "bit += 8 * (int)bytes", "bit += 16"),
    ("masks", "(uint32_t)(stream + n)", "(uint32_t)stream"),
]


@pytest.mark.parametrize(("what", "old", "new"), FAULTS)
def test_a_planted_fault_is_seen(what, old, new, monkeypatch):
    for descending in (False, True):
        use(monkeypatch, descending=descending)
        with_fault(monkeypatch, old, new)
        try:
            CHECKS[what]() if "clipping" not in what else check_clip(1e9)
            CHECKS[what]()
        except SEEN:
            return
    pytest.fail("the fault is not seen")
