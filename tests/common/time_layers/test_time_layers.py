"""T steps at once: the same numbers as one step at a time, and the state between windows.

What all layers share is in test_layer.py; every gradient is checked in test_gradient_check.py.
"""

import math

import numpy
import pytest

from common.layers import LSTM
from common.np import np
from common.time_layers import (
    TimeAffine,
    TimeBiLSTM,
    TimeDropout,
    TimeEmbedding,
    TimeLSTM,
    TimeSigmoidWithLoss,
    TimeSoftmaxWithLoss,
)
from tests.builders import (
    TIME_CELLS,
    D,
    H,
    N,
    T,
    V,
    as_tuple,
    cell_weights,
    close,
    floats,
    generator,
    ids,
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


# ---- dropout ----


def test_dropout_changes_nothing_in_evaluation_and_has_no_way_back_from_there():
    layer, xs = TimeDropout(0.5), floats(generator(), N, T, D)
    layer.forward(xs)
    layer.train_flg = False
    same(layer.forward(xs), xs)
    with pytest.raises(RuntimeError, match=r"^TimeDropout\.backward"):
        layer.backward(xs)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_dropout_keeps_the_expected_share_and_the_expected_sum(ratio):
    layer, xs = TimeDropout(ratio, rng=generator()), np.ones((20, 30, 40))
    ys = layer.forward(xs)
    assert float((ys == 0).mean()) == pytest.approx(ratio, abs=0.01)
    assert float(ys.mean()) == pytest.approx(1, abs=0.02)
    close(ys[ys != 0], np.full(int((ys != 0).sum()), 1 / (1 - ratio)), 1e-6)
    same(layer.backward(xs), ys)


def test_plain_dropout_draws_a_mask_for_every_step():
    ys = TimeDropout(0.5, rng=generator()).forward(np.ones((N, T, 50)))
    assert not bool((ys[:, 0] == ys[:, 1]).all())


def test_variational_dropout_shares_one_mask_over_the_steps_but_not_over_windows():
    layer, xs = TimeDropout(0.5, variational=True, rng=generator()), np.ones((N, T, 50))
    ys = layer.forward(xs)
    assert 0 < float((ys == 0).mean()) < 1
    for t in range(T):
        same(ys[:, t], ys[:, 0])
    assert not bool((ys[0] == ys[1]).all())  # each sequence has its own
    dxs = layer.backward(xs)
    same(dxs, ys)
    assert not bool((layer.forward(xs) == ys).all())


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_of_one_seed_drops_the_same_values(variational):
    xs = np.ones((N, T, 50))
    first, second = (TimeDropout(0.5, variational, generator(4)) for _ in range(2))
    for _ in range(2):
        same(first.forward(xs), second.forward(xs))
    assert not bool((TimeDropout(0.5, variational, generator(5)).forward(xs) == 0).all())


def test_evaluation_draws_nothing_from_the_generator():
    xs = np.ones((N, T, 50))
    first, second = (TimeDropout(0.5, rng=generator(4)) for _ in range(2))
    first.train_flg = False
    first.forward(xs)
    first.train_flg = True
    same(first.forward(xs), second.forward(xs))


# ---- embedding and output layer ----


def test_an_embedding_adds_up_the_gradients_of_a_repeated_id():
    layer = TimeEmbedding(np.arange(6.0).reshape(3, 2))
    xs = np.array([[2, 0, 2], [2, 2, 0]])
    same(layer.forward(xs)[1], np.array([[4.0, 5.0], [4.0, 5.0], [0.0, 1.0]]))
    dys = np.array([[[1.0, 0], [2, 0], [4, 0]], [[8, 0], [16, 0], [32, 1]]])
    assert layer.backward(dys) is None
    same(layer.grads[0], np.array([[34.0, 1.0], [0.0, 0.0], [29.0, 0.0]]))


def test_an_embedding_is_a_product_with_one_hot_rows():
    rng = generator()
    W, xs, dys = floats(rng, V, D), ids(rng, V, 5, 30), floats(rng, 5, 30, D)
    layer = TimeEmbedding(W)
    close(layer.forward(xs), np.eye(V)[xs] @ W)
    layer.backward(dys)
    close(layer.grads[0], np.eye(V)[xs].reshape(150, V).T @ dys.reshape(150, D))


def test_an_embedding_that_accumulates_adds_to_what_the_output_layer_wrote():
    rng = generator()
    layer, xs, dys = TimeEmbedding(floats(rng, V, D)), ids(rng, V, N, T), floats(rng, N, T, D)
    layer.forward(xs)
    layer.backward(dys)
    own = layer.grads[0].copy()
    before = floats(rng, V, D)
    layer.grads[0][...] = before
    layer.accumulate = True
    layer.backward(dys)
    close(layer.grads[0], before + own)


def test_an_embedding_takes_a_list_of_lists():
    layer = TimeEmbedding(floats(generator(), V, D))
    same(layer.forward([[1, 2, 3]]), layer.forward(np.array([[1, 2, 3]])))


def test_an_affine_layer_is_one_product_at_every_step():
    rng = generator()
    W, b, xs, dys = floats(rng, H, V), floats(rng, V), floats(rng, N, T, H), floats(rng, N, T, V)
    layer = TimeAffine(W, b)
    close(layer.forward(xs), xs @ W + b)
    close(layer.backward(dys), dys @ W.T)
    close(layer.grads[0], sum(xs[:, t].T @ dys[:, t] for t in range(T)))
    close(layer.grads[1], dys.sum(axis=(0, 1)))


def test_an_affine_layer_on_a_transposed_view_writes_into_the_transposed_gradient():
    rng = generator()
    table, dtable = floats(rng, V, H), np.zeros((V, H))
    plain, tied = TimeAffine(table.T.copy(), np.zeros(V)), TimeAffine(table.T, np.zeros(V))
    tied.grads[0] = dtable.T
    xs, dys = floats(rng, N, T, H), floats(rng, N, T, V)
    for layer in (plain, tied):
        layer.forward(xs)
        layer.backward(dys)
    close(dtable, plain.grads[0].T)


# ---- losses ----


def naive_loss(xs, ts, ignore_label=-1):
    """Mean of -log softmax(xs)[t] over the targets that count, one by one, in Python's floats."""
    losses = []
    for n, t in numpy.ndindex(ts.shape):
        if int(ts[n, t]) != ignore_label:
            row = [float(x) for x in xs[n, t]]
            most = max(row)
            log_sum = most + math.log(math.fsum(math.exp(x - most) for x in row))
            losses.append(log_sum - row[int(ts[n, t])])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
@pytest.mark.parametrize("ignored", [[], [(0, 0)], [(0, 1), (1, 0), (1, 2)]])
def test_the_loss_is_the_mean_over_the_targets_that_count(ignored, dtype, tolerance):
    rng = generator()
    xs, ts = 3 * floats(rng, N, T, V, dtype=dtype), ids(rng, V, N, T)
    for place in ignored:
        ts[place] = -1
    layer = TimeSoftmaxWithLoss()
    assert float(layer.forward(xs, ts)) == pytest.approx(naive_loss(xs, ts), rel=tolerance)


def test_targets_that_are_ignored_have_no_gradient_and_the_others_share_it():
    rng = generator()
    xs, ts = floats(rng, N, T, V), ids(rng, V, N, T)
    ts[0, 1] = ts[1, 2] = -1
    layer = TimeSoftmaxWithLoss()
    layer.forward(xs, ts)
    dxs = layer.backward()
    for place in ((0, 1), (1, 2)):
        same(dxs[place], np.zeros(V))
    p = np.exp(xs) / np.exp(xs).sum(axis=2, keepdims=True)
    expected = (p[0, 0] - np.eye(V)[int(ts[0, 0])]) / (N * T - 2)
    close(dxs[0, 0], expected)
    close(layer.backward(2.0), 2 * dxs)


def test_the_label_to_ignore_can_be_a_word():
    rng = generator()
    xs, ts = floats(rng, N, T, V), np.array([[0, 3, 3], [1, 2, 3]])
    layer = TimeSoftmaxWithLoss(ignore_label=3)
    assert float(layer.forward(xs, ts)) == pytest.approx(naive_loss(xs, ts, 3), rel=1e-13)
    same(layer.backward()[0, 1], np.zeros(V))


def test_one_hot_targets_are_the_same_as_ids():
    rng = generator()
    xs, ts = floats(rng, N, T, V), ids(rng, V, N, T)
    layer = TimeSoftmaxWithLoss()
    loss, dxs = layer.forward(xs, ts), layer.backward()
    same(layer.forward(xs, np.eye(V)[ts]), loss)
    same(layer.backward(), dxs)


def test_targets_that_are_all_ignored_are_an_error():
    with pytest.raises(ValueError, match=rf"all {N * T} targets are ignore_label=-1"):
        TimeSoftmaxWithLoss().forward(floats(generator(), N, T, V), np.full((N, T), -1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_a_loss_of_huge_scores_is_huge_and_finite(size, dtype):
    xs = np.array([[[size, 0, 0], [size, 0, -size]]], dtype=dtype)
    layer = TimeSoftmaxWithLoss()
    assert float(layer.forward(xs, np.array([[0, 2]]))) == size  # the mean of 0 and 2 size
    same(layer.backward(), np.array([[[0, 0, 0], [0.5, 0, -0.5]]], dtype=dtype))


def test_the_sigmoid_loss_is_the_mean_binary_cross_entropy_over_all_steps():
    rng = generator()
    xs, ts = floats(rng, N, T), ids(rng, 2, N, T)
    layer = TimeSigmoidWithLoss()
    p = 1 / (1 + np.exp(-xs))
    naive = -np.where(ts == 1, np.log(p), np.log(1 - p)).mean()
    assert float(layer.forward(xs, ts)) == pytest.approx(float(naive), rel=1e-12)
    close(layer.backward(), (p - ts) / (N * T))
