"""Passes over whole arrays: compiled or by NumPy, in any memory order, by any number of threads."""

import numpy as np
import pytest

from common import kernels
from common.kernels import passes
from common.kernels import threads as python_threads
from common.kernels.passes import add_rows, add_scaled, descend, norm, scale
from common.optimizer import clip_grads
from tests.builders import floats, generator

SHAPES = [(1,), (63,), (5, 7), (300, 200), (0, 4)]


def array(shape, turned=False, dtype="float32", seed=0):
    return np.asarray(floats(generator(seed), *shape), dtype=dtype, order="F" if turned else "C")


@pytest.fixture(params=["compiled", "numpy"])
def form(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    elif kernels.library() is None:
        pytest.skip("no C compiler here, or TIMELAYERS_NATIVE=0")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("orders", [(False, False), (True, True), (False, True), (True, False)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_x_plus_a_times_y(form, shape, orders, dtype):
    x, y = (array(shape, turned, dtype, seed) for seed, turned in enumerate(orders))
    expected = x - 0.3 * y
    y_before = y.copy()
    add_scaled(x, -0.3, y)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y, y_before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_down_that_is_drawn_to_a_target(form, shape, turned, dtype):
    x, y, target, rate, pull = (array(shape, turned, dtype, seed) for seed in range(5))
    expected = x - rate * y + pull * (target - x)
    descend(x, y, target, rate, pull)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


def test_a_step_down_at_one_rate_for_all(form):
    x, y, target = array((6, 8)), array((6, 8), turned=True, seed=1), array((6, 8), seed=2)
    expected = x - np.float32(0.5) * y + np.float32(0.1) * (target - x)
    descend(x, y, target, *(np.broadcast_to(np.float32(a), x.shape) for a in (0.5, 0.1)))
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_a_times_x(form, shape, turned):
    x = array(shape, turned)
    expected = x * np.float32(0.7)
    scale(x, np.float32(0.7))
    np.testing.assert_array_equal(x, expected)


def test_a_view_that_skips_elements_is_left_to_numpy(form):
    x = array((6, 8))
    expected = x.copy()
    expected[:, ::2] *= np.float32(2)
    scale(x[:, ::2], 2.0)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("turned", [False, True])
def test_the_norm_of_several_arrays(form, turned):
    arrays = [array(shape, turned) for shape in SHAPES]
    exact = np.sqrt(sum((x.astype("float64") ** 2).sum() for x in arrays))
    found = norm(arrays)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_the_norm_of_what_is_not_finite_is_not(form):
    assert np.isnan(norm([np.array([1.0, np.nan], "float32")]))
    assert np.isnan(norm([np.array([1e30, np.nan], "float32")]))
    assert np.isinf(norm([np.array([1.0, -np.inf], "float32")]))


@pytest.mark.parametrize("value", [1e-42, 1e-30, 1e-19, 1e18, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_of_numbers_whose_squares_have_no_room(form, value, dtype):
    arrays = [np.full((300, 200), value, dtype), np.full(7, -value, dtype)]
    expected = float(arrays[0][0, 0]) * 60_007**0.5
    np.testing.assert_allclose(norm(arrays), expected, rtol=1e-5)


@pytest.mark.parametrize("value", [1e10, 1e19, 1e30, 3e38])
@pytest.mark.parametrize("max_norm", [0.25, 1e-8])
def test_large_gradients_are_clipped_to_the_norm_that_is_asked_for(form, value, max_norm):
    grads = [np.full((300, 200), value, "float32"), np.full(7, -value, "float32")]
    length = clip_grads(grads, max_norm)
    np.testing.assert_allclose(length, np.float64(np.float32(value)) * 60_007**0.5, rtol=1e-5)
    expected = max_norm / 60_007**0.5
    np.testing.assert_allclose(grads[0], expected, rtol=1e-5)
    np.testing.assert_allclose(grads[1], -expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [0, 1, 5000])
def test_arguments_in_the_memory_that_is_changed_are_read_as_they_were(form, shift):
    changes = [
        (lambda x, y: add_scaled(x, 0.5, y), lambda x, y: x + np.float32(0.5) * y),
        (lambda x, y: descend(x, y, y, y, y), lambda x, y: x - (y * y - y * (y - x))),
        (lambda x, y: add_rows(x, np.arange(len(x)), y), lambda x, y: x + y),
    ]
    for change, right in changes:
        memory = array((90_000 + shift,))
        x, y = (memory[a : a + 90_000].reshape(300, 300) for a in (shift, 0))
        expected = right(x.copy(), y.copy())
        change(x, y)
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


def test_a_factor_out_of_the_array_that_it_scales(form):
    x = array((600, 300))
    expected = x * x[0, 0]
    scale(x, x[0, 0:1].reshape(()))
    np.testing.assert_array_equal(x, expected)


def test_what_is_read_only_is_refused(form):
    x, y = array((300, 200)), array((300, 200), seed=1)
    before = x.copy()
    x.flags.writeable = False
    for change in (
        lambda: add_scaled(x, 0.1, y),
        lambda: scale(x, 0.1),
        lambda: descend(x, y, y, y, y),
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    np.testing.assert_array_equal(x, before)


def test_a_shape_that_does_not_fit_is_refused(form):
    with pytest.raises(ValueError, match="broadcast"):
        add_scaled(array((5,)), 0.1, array((4,)))


def test_the_number_of_threads_changes_nothing(form, monkeypatch):
    monkeypatch.setattr(passes, "SMALL", 0)
    monkeypatch.setattr(python_threads, "BLOCK_ELEMENTS", 1 << 12)
    found = []
    for threads in (1, 2, 5):
        for module in (kernels, python_threads):
            monkeypatch.setattr(module, "num_threads", lambda threads=threads: threads)
        x, y, target, rate, pull = (array((400, 300), seed=seed) for seed in range(5))
        add_scaled(x, 0.1, y)
        scale(x, 1.7)
        descend(x, y, target, rate, pull)
        found.append((x, norm([x, y])))
    for x, length in found[1:]:
        np.testing.assert_array_equal(x, found[0][0])
        assert length == found[0][1]
