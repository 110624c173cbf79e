"""T steps at once: the same numbers as one step at a time, and the state between windows.

What all layers share is in test_base_layer.py; every gradient is checked in test_gradient_check.py.
"""

import numpy
import pytest

from common.layers import LSTM
from common.np import np
from common.time_layers import TimeBiLSTM, TimeLSTM
from tests.builders import (
    TIME_CELLS,
    D,
    H,
    N,
    T,
    as_tuple,
    cell_weights,
    close,
    floats,
    generator,
    layer_class,
    same,
    weights,
)

pytestmark = pytest.mark.usefixtures("backend")


every_cell = pytest.mark.parametrize("name", TIME_CELLS)
RECURRENT = [*TIME_CELLS, "TimeBiLSTM"]
every_recurrent = pytest.mark.parametrize("name", RECURRENT)


def recurrent_layer(name, stateful=True):
    if name == "TimeBiLSTM":
        rng = generator()
        return TimeBiLSTM(*weights(rng, 4), *weights(rng, 4), stateful=stateful)
    return layer_class(name)(*cell_weights(name), stateful=stateful)


# ---- the same numbers as one step at a time ----


def step_by_step(cell_class, params, xs, states, dhs):
    """One cell for each step of a window, forwards and then back.

    Returns hs, the last states, dxs, the summed gradients, the gradients of the first states.
    """
    cells = [cell_class(*params) for _ in range(xs.shape[1])]
    hs, dxs = [], []
    for t, cell in enumerate(cells):
        states = as_tuple(cell.forward(xs[:, t], *states))
        hs.append(states[0])
    dstates = [np.zeros_like(state) for state in states]
    for t, cell in reversed(list(enumerate(cells))):
        dx, *dstates = cell.backward(dhs[:, t] + dstates[0], *dstates[1:])
        dxs.insert(0, dx)
    grads = [sum(cell.grads[k] for cell in cells) for k in range(3)]
    return np.stack(hs, axis=1), states, np.stack(dxs, axis=1), grads, dstates


@every_cell
def test_a_time_layer_is_its_cell_step_by_step_over_two_windows(name):
    params, rng = cell_weights(name), generator(1)
    layer, cell_class = layer_class(name)(*params, stateful=True), layer_class(name[4:])
    states = [floats(rng, N, H) for _ in layer.state_names]
    layer.set_state(*states)
    for _ in range(2):
        xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
        hs, states, dxs, grads, dstates = step_by_step(cell_class, params, xs, states, dhs)
        close(layer.forward(xs), hs)
        close(layer.backward(dhs), dxs)
        for got, want in zip(layer.grads, grads, strict=True):
            close(got, want)
        for got, want in zip(layer.get_state(), states, strict=True):
            close(got, want)
        for state_name, want in zip(layer.state_names, dstates, strict=True):
            close(getattr(layer, f"d{state_name}"), want)


def test_a_bilstm_is_one_cell_from_the_left_and_one_from_the_right_over_two_windows():
    rng = generator(1)
    left, right = weights(rng, 4), weights(rng, 4)
    layer = TimeBiLSTM(*left, *right, stateful=True)
    left_states, right_states = ([floats(rng, N, H) for _ in "hc"] for _ in "lr")
    layer.set_state(*left_states, *right_states)
    for _ in range(2):
        xs, dhs = floats(rng, N, T, D), floats(rng, N, T, 2 * H)
        hs, left_states, dxs, grads, dleft = step_by_step(
            LSTM, left, xs, left_states, dhs[:, :, :H]
        )
        hs2, right_states, dxs2, grads2, dright = step_by_step(
            LSTM, right, xs[:, ::-1], right_states, dhs[:, ::-1, H:]
        )
        close(layer.forward(xs), np.concatenate([hs, hs2[:, ::-1]], axis=2))
        close(layer.backward(dhs), dxs + dxs2[:, ::-1])
        for got, want in zip(layer.grads, [*grads, *grads2], strict=True):
            close(got, want)
        for got, want in zip(layer.get_state(), [*left_states, *right_states], strict=True):
            close(got, want)
        parts = layer.left.dh, layer.left.dc, layer.right.dh, layer.right.dc
        for got, want in zip(parts, [*dleft, *dright], strict=True):
            close(got, want)


# ---- the state between windows ----


@every_cell
def test_two_windows_with_a_kept_state_are_one_window_of_twice_the_length(name):
    xs = floats(generator(1), N, 2 * T, D)
    whole, halves = recurrent_layer(name), recurrent_layer(name)
    hs = whole.forward(xs)
    parts = [halves.forward(xs[:, :T]), halves.forward(xs[:, T:])]
    close(np.concatenate(parts, axis=1), hs)
    for got, want in zip(halves.get_state(), whole.get_state(), strict=True):
        close(got, want)


@every_recurrent
def test_without_stateful_every_window_begins_at_zero(name):
    layer, xs = recurrent_layer(name, stateful=False), floats(generator(1), N, T, D)
    first = layer.forward(xs).copy()
    same(layer.forward(xs), first)
    layer.forward(xs[:1])  # nor does another batch size disturb it
    stateful = recurrent_layer(name)
    same(stateful.forward(xs), first)
    assert float(abs(stateful.forward(xs) - first).max()) > 1e-3


@every_recurrent
def test_reset_state_begins_at_zero_again(name):
    layer, xs = recurrent_layer(name), floats(generator(1), N, T, D)
    assert layer.get_state() is None
    first = layer.forward(xs).copy()
    layer.reset_state()
    assert layer.get_state() is None
    same(layer.forward(xs), first)


@every_recurrent
def test_a_batch_size_that_changes_under_a_kept_state_is_an_error_until_reset_state(name):
    layer, xs = recurrent_layer(name), floats(generator(1), N, T, D)
    layer.forward(xs)
    with pytest.raises(ValueError, match=rf"batch of {N}, got a batch of 1; call reset_state"):
        layer.forward(xs[:1])
    layer.reset_state()
    hs = layer.forward(xs[:1])
    assert hs.shape == (1, T, 2 * H if name == "TimeBiLSTM" else H)


@every_recurrent
def test_get_state_and_set_state_copy(name):
    layer, xs = recurrent_layer(name), floats(generator(1), N, T, D)
    layer.forward(xs)
    state = layer.get_state()
    expected = layer.forward(xs).copy()
    given = tuple(array.copy() for array in state)
    layer.set_state(*given)
    for array in given:
        array[...] = 99
    for array in layer.get_state():
        array[...] = 77
    same(layer.forward(xs), expected)


@every_recurrent
def test_what_a_window_returned_is_no_longer_needed_for_the_next(name):
    xs = floats(generator(1), N, T, D)
    plain, spoilt = recurrent_layer(name), recurrent_layer(name)
    plain.forward(xs)
    hs = spoilt.forward(xs)
    if isinstance(hs, numpy.ndarray):
        hs.flags.writeable = True
    hs[...] = 99
    same(spoilt.forward(xs), plain.forward(xs))


@every_cell
def test_outputs_that_backward_reads_again_cannot_be_changed_in_place(name, backend):
    if backend == "gpu":
        pytest.skip("CuPy has no arrays that are read-only")
    layer, rng = recurrent_layer(name), generator(1)
    for _ in range(2):
        hs = layer.forward(floats(rng, N, T, D))
        with pytest.raises(ValueError, match="read-only"):
            hs[0, 0] += 1


@every_recurrent
def test_a_recurrent_layer_says_whether_it_is_stateful(name):
    assert recurrent_layer(name, stateful=True).stateful is True
    assert recurrent_layer(name, stateful=False).stateful is False


@every_recurrent
def test_a_state_for_a_layer_that_keeps_none_is_refused(name):
    layer = recurrent_layer(name, stateful=False)
    state = [np.zeros((N, H))] * {"TimeLSTM": 2, "TimeBiLSTM": 4}.get(name, 1)
    with pytest.raises(ValueError, match="stateful=True"):
        layer.set_state(*state)


@every_cell
@pytest.mark.parametrize("shape", [(N, H + 1), (H,)])
def test_a_state_of_another_shape_is_refused_by_name(name, shape):
    layer = recurrent_layer(name)
    states = [np.zeros(shape) for _ in layer.state_names]
    with pytest.raises(ValueError, match=rf"^{type(layer).__name__}: expected h of shape"):
        layer.set_state(*states)


def test_an_lstm_given_only_h_begins_with_a_cell_of_zeros():
    h, xs = floats(generator(1), N, H), floats(generator(2), N, T, D)
    first, second = recurrent_layer("TimeLSTM"), recurrent_layer("TimeLSTM")
    first.set_state(h)
    second.set_state(h, np.zeros((N, H)))
    same(first.forward(xs), second.forward(xs))


def test_an_lstm_whose_h_is_set_begins_with_a_cell_of_zeros():
    h, xs = floats(generator(1), N, H), floats(generator(2), N, T, D)
    first, second = recurrent_layer("TimeLSTM"), recurrent_layer("TimeLSTM")
    first.h = h
    second.set_state(h, None)
    hs = first.forward(xs)
    assert bool(np.isfinite(hs).all())
    same(hs, second.forward(xs))


def test_an_lstm_given_only_c_begins_with_an_h_of_zeros():
    c, xs = floats(generator(1), N, H), floats(generator(2), N, T, D)
    first, second = recurrent_layer("TimeLSTM"), recurrent_layer("TimeLSTM")
    first.set_state(None, c)
    second.set_state(np.zeros((N, H)), c)
    same(first.forward(xs), second.forward(xs))


@every_cell
def test_states_that_are_none_are_those_of_a_layer_that_has_read_nothing(name):
    layer, xs = recurrent_layer(name), floats(generator(), N, T, D)
    fresh = layer.forward(xs)
    layer.set_state(*(None for _ in layer.state_names))
    assert layer.get_state() is None
    same(layer.forward(xs), fresh)


@every_cell
def test_no_state_at_all_is_refused(name):
    layer = recurrent_layer(name)
    with pytest.raises(TypeError, match=r"set_state: expected the states h.*, got 0"):
        layer.set_state()


def test_the_two_states_of_an_lstm_have_one_batch_size():
    layer = recurrent_layer("TimeLSTM")
    with pytest.raises(ValueError, match="TimeLSTM: expected c of shape"):
        layer.set_state(np.zeros((N, H)), np.zeros((N + 1, H)))


@every_cell
def test_a_state_takes_the_dtype_of_the_layer(name):
    layer = layer_class(name)(*cell_weights(name, "float32"), stateful=True)
    layer.set_state(*(np.ones((N, H), dtype="float64") for _ in layer.state_names))
    assert layer.forward(floats(generator(), N, T, D)).dtype == "float32"
    assert {str(state.dtype) for state in layer.get_state()} == {"float32"}


def test_a_lstm_survives_saturated_gates():
    layer = TimeLSTM(*(1e4 * p for p in cell_weights("TimeLSTM")), stateful=True)
    for _ in range(2):
        hs = layer.forward(floats(generator(1), N, T, D))
        dxs = layer.backward(np.ones_like(hs))
        assert bool(np.isfinite(hs).all()) and bool(np.isfinite(dxs).all())
