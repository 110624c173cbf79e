"""What rows of scores foretell: the compiled pass, the lines in NumPy, and both against float64."""

import numpy
import pytest

from common import kernels
from common.kernels.predictions import describe
from common.np import np, to_cpu
from tests.builders import generator, same

needs_kernels = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0"
)


def by_sorting(S, ts, k):
    """The same from probabilities in float64, one row at a time."""
    found = []
    for s, t in zip(S.astype("float64"), ts, strict=True):
        log_sum = numpy.logaddexp.reduce(s)
        p = numpy.exp(s - log_sum)
        entropy = -(p[p > 0] * numpy.log(p[p > 0])).sum()
        order = sorted(range(len(s)), key=lambda v: (-s[v], v))
        rank = sum(s[v] > s[t] for v in range(len(s))) + 1
        found.append((log_sum, entropy, rank, order[:k]))
    return [numpy.array(column) for column in zip(*found, strict=True)]


def checked(S, ts, k, tolerance=2e-6):
    found = describe(np.asarray(S), np.asarray(ts), k)
    log_sums, entropy, rank, best = by_sorting(S, ts, k)
    numpy.testing.assert_allclose(to_cpu(found.log_sums), log_sums, rtol=tolerance, atol=tolerance)
    numpy.testing.assert_allclose(to_cpu(found.entropy), entropy, rtol=tolerance, atol=tolerance)
    same(found.rank, rank)
    same(found.best, best.reshape(len(ts), k).astype("int64"))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("V", [1, 2, 63, 64, 65, 129, 2500])  # around the ends of vectors
def test_every_row_is_as_plain_sums_and_sorting_say(V, dtype):
    rng = generator(V)
    S = (3 * rng.standard_normal((7, V))).astype(dtype)
    checked(S, rng.integers(0, V, 7), min(V, 5))


@pytest.mark.usefixtures("backend")
def test_of_equal_scores_the_lower_id_is_first_and_all_share_the_better_rank():
    S = numpy.array([[1, 5, 5, 0, 5, 7], [2, 2, 2, 2, 2, 2]], "float32")
    found = describe(np.asarray(S), np.asarray([4, 3]), 6)
    assert to_cpu(found.best).tolist() == [[5, 1, 2, 4, 0, 3], [0, 1, 2, 3, 4, 5]]
    assert to_cpu(found.rank).tolist() == [2, 1]
    assert to_cpu(found.entropy)[1] == pytest.approx(numpy.log(6), rel=1e-7)


@pytest.mark.usefixtures("backend")
def test_scores_of_a_thousand_lose_no_digit():
    S = numpy.zeros((3, 200), "float32")
    S[0, 7] = 1000  # certain
    S[1] = -1000  # all alike
    S[2, :2] = 1000, 1000 - 0.5
    found = describe(np.asarray(S), np.asarray([3, 3, 1]), 2)
    p = 1 / (1 + numpy.exp(-0.5))
    entropy = [0, numpy.log(200), -p * numpy.log(p) - (1 - p) * numpy.log(1 - p)]
    numpy.testing.assert_allclose(to_cpu(found.entropy), entropy, rtol=1e-6, atol=1e-30)
    expected = [1000, numpy.log(200) - 1000, 1000 - numpy.log(p)]
    numpy.testing.assert_allclose(to_cpu(found.log_sums), expected, rtol=1e-9)
    assert to_cpu(found.rank).tolist() == [2, 1, 2]
    assert to_cpu(found.best)[[0, 2]].tolist() == [[7, 0], [0, 1]]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("place", [0, 70, 99])
def test_a_score_that_is_not_finite_shows_in_its_row_alone(value, place):
    S = generator().standard_normal((3, 100)).astype("float32")
    S[1, place] = value
    with numpy.errstate(invalid="ignore"):
        found = describe(np.asarray(S), np.asarray([0, 0, 0]), 3)
    assert numpy.isfinite(to_cpu(found.entropy)).tolist() == [True, False, True]


@needs_kernels
@pytest.mark.parametrize("ordered", [1, -1])
def test_the_compiled_pass_equals_its_numpy_lines(ordered, monkeypatch):
    """Also where each next score is among the best so far, or none after the first ones is."""
    S = generator().standard_normal((9, 3001)).astype("float32")
    S = numpy.ascontiguousarray(numpy.sort(S)[:, ::ordered])
    ts = generator(1).integers(0, 3001, 9)
    fast = describe(S, ts, 17)
    monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    clear = describe(S, ts, 17)
    same(fast.rank, clear.rank)
    same(fast.best, clear.best)
    numpy.testing.assert_allclose(fast.log_sums, clear.log_sums, rtol=1e-6)
    numpy.testing.assert_allclose(fast.entropy, clear.entropy, rtol=1e-6)


@needs_kernels
def test_the_number_of_threads_changes_no_bit(monkeypatch):
    S = generator().standard_normal((50, 3001)).astype("float32")
    ts, found = generator(1).integers(0, 3001, 50), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        found.append(describe(S, ts, 5))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            same(a, b)


def test_no_best_class_may_be_wanted_and_no_row_be_there():
    S = generator().standard_normal((3, 100)).astype("float32")
    assert describe(S, numpy.array([1, 2, 3]), 0).best.shape == (3, 0)
    if kernels.library() is not None:  # NumPy has no largest of nothing
        assert describe(S[:0], numpy.array([], int), 2).rank.shape == (0,)


def test_what_does_not_fit_is_refused_before_memory_is_touched():
    S = numpy.zeros((2, 5), "float32")
    for ts, k, message in [
        ([1], 1, r"expected ts of shape \(2,\), got \(1,\)"),
        ([0, 5], 1, "expected ts in 0..4, got 0 to 5"),
        ([-1, 0], 1, "expected ts in 0..4, got -1 to 0"),
        ([0, 0], 6, "expected k in 0..5, got 6"),
    ]:
        with pytest.raises(ValueError, match=rf"^describe: {message}$"):
            describe(S, numpy.array(ts), k)
