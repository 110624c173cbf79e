"""Fast forms against the clear ones: compiled kernels, threads, the output layer with its loss."""

import tracemalloc
import weakref

import numpy as np
import pytest

from common import kernels
from common.kernels import Workspace, build
from common.kernels import output as output_kernels
from common.kernels import threads as python_threads
from common.time_layers import (
    TimeAffine,
    TimeGRU,
    TimeLSTM,
    TimeOutputWithLoss,
    TimeSoftmaxWithLoss,
)

N, T, D, H, V = 3, 5, 4, 37, 1029  # odd sizes: no loop of the kernels ends on a whole vector

needs_kernels = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler here, or TIMELAYERS_NATIVE=0"
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def floats(rng, *shape):
    return rng.standard_normal(shape).astype("float32")


def two_windows(cell, rng, N=N, T=T, H=H):
    """Everything that a recurrent layer computes in two windows of one state, as arrays."""
    k = cell.num_gates
    Wh = floats(rng, H, k * H) * H**-0.5  # larger, and rounding grows from step to step
    layer = cell(floats(rng, D, k * H), Wh.astype("float32"), floats(rng, 4 * H), True)
    found = []
    for _ in range(2):
        found.append(layer.forward(floats(rng, N, T, D)))
        found.append(layer.backward(floats(rng, N, T, H)))
        found += [*layer.grads, layer.dh, *layer.get_state()]
    return [array.copy() for array in found]


def loss_and_gradients(rng, scale=1.0, layer_of=TimeOutputWithLoss, tied=False, H=H):
    """Loss, dxs, dW and db of the output layer for one window with an ignored target.

    All numbers are multiples of 1/16, so that float32 holds large scores exactly: rounded, they
    would differ from BLAS to BLAS by more than probabilities may.
    """
    W, b, xs = (np.round(16 * floats(rng, *s)) / 16 for s in ((H, V), (V,), (N, T, H)))
    W, b, xs = (x.astype("float32") for x in (W, b, scale * xs))
    output = TimeAffine(np.asfortranarray(W) if tied else W, b)
    ts = rng.integers(0, V, (N, T))
    ts[0, 2] = -1
    if layer_of is TimeOutputWithLoss:
        layer = TimeOutputWithLoss(output)
        loss = layer.forward(xs, ts)
        dxs = layer.backward()
    else:
        layer = TimeSoftmaxWithLoss()
        loss = layer.forward(output.forward(xs), ts)
        dxs = output.backward(layer.backward())
    return [np.asarray(loss), dxs, *output.grads]


@needs_kernels
@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize(
    ("N", "T"), [(1, 1), (1, 4), (2, 2), (4, 1), (2, 3), (1, 9), (7, 2), (13, 3)]
)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_compiled_window_equals_its_numpy_lines(cell, N, T, threads, monkeypatch):
    monkeypatch.setattr(kernels, "num_threads", lambda: threads)
    monkeypatch.setattr(kernels, "LARGE_STEP", 0)
    compiled = two_windows(cell, np.random.default_rng(1), N, T)
    monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    in_numpy = two_windows(cell, np.random.default_rng(1), N, T)
    for fast, clear in zip(compiled, in_numpy, strict=True):
        np.testing.assert_allclose(fast, clear, rtol=2e-5, atol=2e-5 * abs(clear).max())


WIDTHS = [1, 8, 16, 24, 33, 48, 64, 100]  # whole panels, half ones, and neither


@needs_kernels
@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize("H", WIDTHS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_width_of_a_window_fits_the_panels(cell, H, threads, monkeypatch):
    monkeypatch.setattr(kernels, "num_threads", lambda: threads)
    monkeypatch.setattr(kernels, "LARGE_STEP", 0)
    compiled = two_windows(cell, np.random.default_rng(1), 5, 3, H)
    monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    in_numpy = two_windows(cell, np.random.default_rng(1), 5, 3, H)
    for fast, clear in zip(compiled, in_numpy, strict=True):
        np.testing.assert_allclose(fast, clear, rtol=2e-5, atol=2e-5 * abs(clear).max())


@pytest.mark.parametrize("H", WIDTHS)
@pytest.mark.parametrize("tied", [False, True])
def test_every_width_of_the_output_layer_fits_the_panels(H, tied, monkeypatch):
    joined = loss_and_gradients(np.random.default_rng(2), tied=tied, H=H)
    monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    apart = loss_and_gradients(np.random.default_rng(2), 1.0, TimeSoftmaxWithLoss, tied, H)
    for fast, clear in zip(joined, apart, strict=True):
        np.testing.assert_allclose(fast, clear, rtol=2e-5, atol=2e-6 * abs(clear).max())


@pytest.mark.parametrize("compiled", [True, False])
def test_an_evaluation_has_the_same_loss_and_refuses_to_go_back(compiled, rng, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    layer = TimeOutputWithLoss(TimeAffine(floats(rng, H, V), floats(rng, V)))
    xs, ts = floats(rng, N, T, H), rng.integers(0, V, (N, T))
    layer.train_flg = False
    loss = layer.forward(xs, ts)
    with pytest.raises(RuntimeError, match="no forward pass in training mode"):
        layer.backward()
    layer.train_flg = True
    assert layer.forward(xs, ts) == loss
    assert layer.backward().any()


@needs_kernels
def test_an_evaluation_makes_no_room_for_the_exponentials(rng):
    layer = TimeOutputWithLoss(TimeAffine(floats(rng, H, V), floats(rng, V)))
    layer.train_flg = False
    tracemalloc.start()
    try:
        layer.forward(floats(rng, 1, 2000, H), rng.integers(0, V, (1, 2000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2000 * V * 4 / 2  # of S in float32


@needs_kernels
@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
@pytest.mark.parametrize(("N", "T"), [(7, 5), (1, 1), (2, 2)])
def test_the_number_of_threads_changes_no_bit_of_a_window(cell, N, T, monkeypatch):
    monkeypatch.setattr(kernels, "LARGE_STEP", 0)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        found.append(two_windows(cell, np.random.default_rng(1), N, T))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@needs_kernels
@pytest.mark.parametrize("cell", [TimeLSTM, TimeGRU])
def test_the_room_that_a_kernel_works_in_is_held_while_it_runs(cell, monkeypatch):
    compiled, room_for_panels = build.load(), kernels._room_for_panels
    rooms, held = [], []

    def room(*arguments):
        array = room_for_panels(*arguments).copy()  # nobody else holds its memory
        rooms.append(weakref.ref(array))
        return array

    def watched(run):
        def call(*arguments):
            held.append(rooms[-1]() is not None)
            if held[-1]:  # it would write into memory of others
                run(*arguments)

        return call

    monkeypatch.setattr(kernels, "_room_for_panels", room)
    for name in (f"{cell.__name__[4:].lower()}_{way}" for way in ("forward", "backward")):
        monkeypatch.setattr(compiled, name, watched(getattr(compiled, name)))
    two_windows(cell, np.random.default_rng(1))
    assert held == [True] * 4


def exponentials(x):
    """exp(x) of one row x, and its sum, by the compiled output layer."""
    output = TimeAffine(x[None, :].astype("float32"), np.zeros(len(x), "float32"))
    found = output_kernels.CompiledScores(
        output.params, output.grads, Workspace(), kernels.library()
    )
    total = found.exponentials(np.ones((1, 1), "float32"))
    return found.S.reshape(-1)[: len(x)], total[0]


@needs_kernels
def test_the_exponential_is_right_to_the_last_places(rng):
    for x in (np.linspace(-86, 77, 100_001), 3 * rng.standard_normal(100_001)):
        found, total = exponentials(x)
        exact = np.exp(x.astype("float32").astype("float64"))
        np.testing.assert_allclose(found, exact, rtol=2.5e-7)
        np.testing.assert_allclose(total, exact.sum(), rtol=2e-7)


@needs_kernels
def test_the_exponential_of_nan_is_nan():
    found, total = exponentials(np.array([1.0, np.nan]))
    assert np.isnan(found[1]) and np.isnan(total)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_output_with_loss_equals_the_two_layers_it_joins(scale, compiled, tied, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    joined = loss_and_gradients(np.random.default_rng(2), scale, tied=tied)
    monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    apart = loss_and_gradients(np.random.default_rng(2), scale, TimeSoftmaxWithLoss, tied)
    for fast, clear in zip(joined, apart, strict=True):
        assert np.isfinite(fast).all()
        np.testing.assert_allclose(fast, clear, rtol=2e-5, atol=2e-6 * abs(clear).max())


@pytest.mark.parametrize("highest", [60.0, 86.0, 88.5])
def test_scores_whose_exponentials_barely_fit_have_finite_gradients(highest, rng):
    W = np.full((1, 4), 40.0, "float32")
    layer = TimeOutputWithLoss(TimeAffine(W, np.array([0, -1, -2, 3], "float32")))
    xs = np.full((1, 10, 1), (highest - 3) / 40, "float32")
    layer.forward(xs, np.ones((1, 10), int))
    dxs = layer.backward()
    p = np.exp([-3.0, -4.0, -5.0, 0.0])
    p /= p.sum()
    for found, expected in zip(
        [10 * dxs[0, 0], layer.output.grads[1]], [[0.0], p - [0, 1, 0, 0]], strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_an_ignored_target_has_no_gradient(rng):
    _, dxs, *_ = loss_and_gradients(rng)
    assert not dxs[0, 2].any()
    assert dxs[0, 1].any()


def test_backward_twice_gives_the_same_answer(rng):
    output = TimeAffine(floats(rng, H, V), floats(rng, V))
    layer = TimeOutputWithLoss(output)
    layer.forward(floats(rng, N, T, H), rng.integers(0, V, (N, T)))
    first = [layer.backward().copy(), *(grad.copy() for grad in output.grads)]
    for a, b in zip(first, [layer.backward(), *output.grads], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("ts", "message"),
    [
        (np.full((N, T), V), f"expected ts in 0..{V - 1}, got {V}"),
        (np.full((N, T), -2), "got -2"),
        (np.zeros((N, T + 1), int), r"expected ts of shape \(3, 5\), got \(3, 6\)"),
    ],
)
def test_bad_targets_are_refused(ts, message, rng):
    layer = TimeOutputWithLoss(TimeAffine(floats(rng, H, V), floats(rng, V)))
    with pytest.raises(ValueError, match=message):
        layer.forward(floats(rng, N, T, H), ts)


def test_targets_that_are_all_ignored_cost_nothing(rng):
    output = TimeAffine(floats(rng, H, V), floats(rng, V))
    layer = TimeOutputWithLoss(output)
    assert float(layer.forward(floats(rng, N, T, H), np.full((N, T), -1))) == 0
    output.grads[0][...] = output.grads[1][...] = 1
    for gradient in (layer.backward(), *output.grads):
        assert not gradient.any()


def test_the_number_of_threads_changes_nothing(monkeypatch):
    found = []
    for threads in (1, 2, 3):
        for module in (kernels, python_threads):
            monkeypatch.setattr(module, "num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(python_threads, "BLOCK_ELEMENTS", 2 * V)
        monkeypatch.setattr(output_kernels, "SMALL_PRODUCT", 0)
        found.append(loss_and_gradients(np.random.default_rng(3)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_address_is_that_of_the_first_element(rng):
    class Subclass(np.ndarray):
        pass

    x = floats(rng, 4, 6)
    read_only = x[1:]
    read_only.flags.writeable = False
    views = [x, x.T, x[2:, 3], x[::-1], read_only, x.view(Subclass)]
    for array in [*views, np.empty((0, 3)), np.array(2.0)]:
        assert kernels.address(array) == array.__array_interface__["data"][0]
    assert kernels.address(None) is None


def test_kernels_are_for_contiguous_float32_only(rng):
    x = floats(rng, 4, 6)
    assert kernels.library(x.astype("float64")) is None
    assert kernels.library(x.T) is None
    assert kernels.library(misaligned(x)) is None


def misaligned(x):
    """The same numbers in memory that begins at an odd address."""
    memory = np.empty(x.nbytes + 1, "uint8")[1:]
    found = memory.view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_window_with_weights_at_an_odd_address_is_right(which, rng):
    shapes = [(D, 4 * H), (H, 4 * H), (4 * H,)]
    params = [0.1 * floats(rng, *shape) for shape in shapes]
    xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
    other = list(params)
    other[which] = misaligned(params[which])
    found = []
    for layer in (TimeLSTM(*params), TimeLSTM(*other)):
        found.append([layer.forward(xs), layer.backward(dhs), *layer.grads])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * abs(b).max())


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_the_output_layer_that_are_read_only_are_refused(which, rng, tmp_path):
    layer = TimeOutputWithLoss(TimeAffine(floats(rng, H, V), floats(rng, V)))
    grads = layer.output.grads
    grads[which].tofile(tmp_path / "grad")  # a kernel that wrote there would end the process
    grads[which] = np.memmap(tmp_path / "grad", "float32", "r", shape=grads[which].shape)
    layer.forward(floats(rng, N, T, H), rng.integers(0, V, (N, T)))
    with pytest.raises(ValueError, match="read-only"):
        layer.backward()


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_a_window_that_are_read_only_are_refused(which, rng, tmp_path):
    layer = TimeLSTM(floats(rng, D, 4 * H), floats(rng, H, 4 * H), floats(rng, 4 * H))
    layer.grads[which].tofile(tmp_path / "grad")
    layer.grads[which] = np.memmap(
        tmp_path / "grad", "float32", "r", shape=layer.grads[which].shape
    )
    layer.forward(floats(rng, N, T, D))
    with pytest.raises(ValueError, match="read-only"):
        layer.backward(floats(rng, N, T, H))
