"""Recurrent layers on top of each other: PyTorch's numbers, and what each option does."""

import numpy
import pytest

from common.base_layer import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.layers import RNN
from common.np import np
from common.time_layers import TimeBiLSTM, TimeRNN, TimeStack
from tests.builders import D, H, N, T, close, floats, generator, same, weights

CELLS = ["rnn", "lstm", "gru"]
every_cell = pytest.mark.parametrize("cell", CELLS)
on_both = pytest.mark.usefixtures("backend")


def stack(num_layers=2, cell="rnn", dtype="float64", **options):
    return TimeStack(D, H, num_layers, cell, rng=0, dtype=dtype, **options)


def states(layer, seed=5):
    """A random state that ``layer`` can begin from."""
    rng, dtype = generator(seed), layer.params[0].dtype
    shape = len(layer.one_way), N, H
    return tuple(floats(rng, *shape, dtype=dtype) for _ in layer.one_way[0].state_names)


def sequences(layer, steps=T, seed=1):
    """Random xs and dys for ``layer``."""
    rng, dtype = generator(seed), layer.params[0].dtype
    return tuple(floats(rng, N, steps, d, dtype=dtype) for d in (D, H * layer.directions))


def run(layer, state=None, d_final=None):
    """Forward and back: everything that comes out, flat, the weights' gradients last."""
    xs, dys = sequences(layer)
    ys, final = layer.forward(xs, state), layer.state
    dxs = layer.backward(dys, d_final)
    return [ys, *final, dxs, *layer.dstate, *(grad.copy() for grad in layer.grads)]


# ---- the same numbers as PyTorch ----


@pytest.fixture
def torch():
    reason = "parity needs PyTorch; install 'time-layers[bench]'"
    torch = pytest.importorskip("torch", reason=reason)
    torch.set_num_threads(1)  # for arrays this small, threads only wait for each other
    return torch


def run_torch(torch, cell, layer, state, d_final, **options):
    """What ``run`` returns, of the module of PyTorch's with the same weights."""
    name = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}[cell]
    module = getattr(torch.nn, name)(D, H, batch_first=True, **options)

    def to_torch(array):
        array = reorder_gates(array, LSTM_GATES, TORCH_LSTM_GATES) if cell == "lstm" else array
        return torch.tensor(array.T.copy())

    def to_ours(tensor):
        array = tensor.detach().numpy().T
        return reorder_gates(array, TORCH_LSTM_GATES, LSTM_GATES) if cell == "lstm" else array

    def theirs(name):
        kind, place = name.split("_", 1)
        return getattr(
            module, {"Wx": "weight_ih_", "Wh": "weight_hh_", "b": "bias_ih_"}[kind] + place
        )

    gates = layer.params[0].shape[1]
    with torch.no_grad():
        for name, param in zip(layer.param_names, layer.params, strict=True):
            theirs(name)[...] = to_torch(param if name[0] == "W" else param[:gates])
            if name[0] == "b":  # theirs has a second one, which only the GRU needs
                second = getattr(module, "bias_hh_" + name[2:])
                second.zero_()
                second[len(second) - len(param[gates:]) :] = torch.tensor(param[gates:])

    xs, dys = (torch.tensor(array) for array in sequences(layer))
    first = [torch.tensor(array).requires_grad_() for array in state]
    ys, final = module(xs.requires_grad_(), tuple(first) if cell == "lstm" else first[0])
    final = final if cell == "lstm" else (final,)
    loss = (ys * dys).sum()
    for array, gradient in zip(final, d_final, strict=True):
        loss = loss + (array * torch.tensor(gradient)).sum()
    loss.backward()

    grads = []
    for name, param in zip(layer.param_names, layer.params, strict=True):
        grad = to_ours(theirs(name).grad)
        if name[0] == "b":
            second = getattr(module, "bias_hh_" + name[2:]).grad.numpy()
            grad = numpy.concatenate([grad, second[len(second) - len(param[gates:]) :]])
        grads.append(grad)
    outputs = [tensor.detach().numpy() for tensor in (ys, *final)]
    return [*outputs, *(tensor.grad.numpy() for tensor in (xs, *first)), *grads]


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("cell", ["rnn tanh", "rnn relu", "lstm", "gru"])
def test_outputs_states_and_all_gradients_are_those_of_pytorch(
    torch, cell, bias, bidirectional, num_layers
):
    cell, *nonlinearity = cell.split()
    options = {"bias": bias, "bidirectional": bidirectional}
    if nonlinearity:
        options["nonlinearity"] = nonlinearity[0]
    layer = stack(num_layers, cell, "float32", **options)
    state, d_final = states(layer), states(layer, seed=6)
    expected = run_torch(torch, cell, layer, state, d_final, num_layers=num_layers, **options)
    got = run(layer, state, d_final)
    assert all(array.dtype == "float32" for array in got)
    for ours, theirs in zip(got, expected, strict=True):
        close(ours, theirs, 1e-5)


@every_cell
def test_initial_weights_fill_the_interval_of_pytorch(cell):
    bound = 40**-0.5
    for param in TimeStack(30, 40, 2, cell, rng=0).params:
        assert -bound <= param.min() < -0.8 * bound
        assert 0.8 * bound < param.max() <= bound


# ---- what it is made of ----


@on_both
@every_cell
def test_a_stack_is_its_layers_one_after_the_other(cell):
    layer = stack(3, cell)
    xs, _ = sequences(layer)
    ys, (h, *_) = layer.forward(xs), layer.state
    for k, part in enumerate(layer.one_way):
        alone = type(part)(*part.params)
        xs = alone.forward(xs)
        same(h[k], alone.h)
    same(ys, xs)


@on_both
def test_one_lstm_in_both_directions_is_time_bilstm():
    layer = stack(1, "lstm", bidirectional=True)
    alone = TimeBiLSTM(*(param.copy() for param in layer.params))
    xs, dys = sequences(layer)
    same(layer.forward(xs), alone.forward(xs))
    same(layer.backward(dys), alone.backward(dys))
    for got, expected in zip(layer.grads, alone.grads, strict=True):
        same(got, expected)


def test_names_are_those_of_pytorch_layer_by_layer_and_then_the_direction():
    assert stack(2, bias=False, bidirectional=True).param_names == (
        *("Wx_l0", "Wh_l0", "Wx_l0_reverse", "Wh_l0_reverse"),
        *("Wx_l1", "Wh_l1", "Wx_l1_reverse", "Wh_l1_reverse"),
    )
    layer = stack(1, "gru")
    assert dict(zip(layer.param_names, [p.shape for p in layer.params], strict=True)) == {
        "Wx_l0": (D, 3 * H),
        "Wh_l0": (H, 3 * H),
        "b_l0": (4 * H,),
    }


@every_cell
def test_without_bias_there_is_none_to_learn_and_all_are_zero(cell):
    layer = stack(2, cell, bias=False)
    run(layer)
    assert not any(name.startswith("b") for name in layer.param_names)
    assert len(layer.params) == len(layer.grads) == 4
    for part in layer.one_way:
        assert not part.params[2].any()


# ---- tanh or relu ----


@on_both
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_time_rnn_is_the_cell_step_by_step(nonlinearity):
    rng = generator()
    params = weights(rng, 1)
    layer = TimeRNN(*params, nonlinearity=nonlinearity)
    cells = [RNN(*params, nonlinearity=nonlinearity) for _ in range(T)]
    xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
    hs, h = layer.forward(xs), np.zeros((N, H))
    for t, cell in enumerate(cells):
        h = cell.forward(xs[:, t], h)
        close(hs[:, t], h)
    dxs, dh = layer.backward(dhs), np.zeros((N, H))
    for t in reversed(range(T)):
        dx, dh = cells[t].backward(dhs[:, t] + dh)
        close(dxs[:, t], dx)
    close(layer.dh, dh)
    for k, grad in enumerate(layer.grads):
        close(grad, sum(cell.grads[k] for cell in cells))


def test_relu_keeps_what_is_positive_and_its_slope_is_zero_elsewhere():
    cell = RNN(np.eye(3), np.zeros((3, 3)), np.zeros(3), "relu")
    same(cell.forward(np.array([[-2.0, 0.0, 2.0]]), np.zeros((1, 3))), np.array([[0.0, 0.0, 2.0]]))
    dx, _ = cell.backward(np.array([[5.0, 5.0, 5.0]]))
    same(dx, np.array([[0.0, 0.0, 5.0]]))


@pytest.mark.parametrize("layer_class", [RNN, TimeRNN])
def test_another_nonlinearity_is_refused_by_name(layer_class):
    expected = rf"^{layer_class.__name__}: expected nonlinearity 'tanh' or 'relu', got 'sigmoid'"
    with pytest.raises(ValueError, match=expected):
        layer_class(*weights(generator(), 1), nonlinearity="sigmoid")


# ---- dropout ----


def test_dropout_stands_between_the_layers_and_not_after_the_last():
    layer = stack(3, "lstm", dropout=0.6)
    assert len(layer.dropouts) == 2
    ys, undropped = (each.forward(sequences(each)[0]) for each in (layer, stack(3, "lstm")))
    assert abs(ys - undropped).min() > 0  # every output feels it,
    assert abs(ys).min() > 0  # and none is dropped itself


def test_evaluation_drops_nothing():
    layer = stack(2, dropout=0.6)
    layer.train_flg = False
    xs, _ = sequences(layer)
    same(layer.forward(xs), stack(2).forward(xs))


def test_one_layer_has_nothing_to_drop_between_and_says_so():
    with pytest.raises(
        ValueError, match=r"^TimeStack: dropout 0\.6 is between layers, and there is"
    ):
        stack(1, dropout=0.6)
    assert not stack(1).dropouts


def test_masks_come_from_the_generator_of_the_weights():
    first, second = (stack(2, dropout=0.5) for _ in range(2))
    xs, _ = sequences(first)
    for _ in range(2):
        same(first.forward(xs), second.forward(xs))


# ---- states ----


@on_both
@every_cell
def test_a_state_carried_by_hand_or_kept_makes_two_windows_one(cell):
    by_hand, stateful, whole = stack(2, cell), stack(2, cell, stateful=True), stack(2, cell)
    xs, _ = sequences(whole, steps=2 * T)
    expected, final = whole.forward(xs), whole.state
    state = None
    for window in (slice(T), slice(T, 2 * T)):
        ys = by_hand.forward(xs[:, window], state)
        state = by_hand.state
        close(ys, expected[:, window])
        same(stateful.forward(xs[:, window]), ys)
    for got, want, same_state in zip(state, final, stateful.get_state(), strict=True):
        close(got, want)
        same(same_state, got)


@every_cell
def test_a_stack_that_keeps_nothing_begins_from_zeros_each_time(cell):
    layer = stack(2, cell)
    xs, _ = sequences(layer)
    first = layer.forward(xs)
    layer.forward(xs, states(layer))
    same(layer.forward(xs), first)
    assert layer.get_state() is None


@every_cell
def test_get_state_set_state_and_reset_state_of_a_stateful_stack(cell):
    layer = stack(2, cell, stateful=True, bidirectional=True)
    xs, _ = sequences(layer)
    assert layer.get_state() is None
    first, final = layer.forward(xs), layer.state
    state = layer.get_state()
    second = layer.forward(xs)
    layer.set_state(*state)
    same(layer.forward(xs), second)
    for kept, returned in zip(state, final, strict=True):
        same(kept, returned)
    layer.reset_state()
    assert layer.get_state() is None
    same(layer.forward(xs), first)


@on_both
@pytest.mark.parametrize("bidirectional", [False, True])
@every_cell
def test_a_gradient_of_the_last_h_is_one_of_the_output_at_the_last_step(cell, bidirectional):
    layer = stack(1, cell, bidirectional=bidirectional)
    xs, dys = sequences(layer)
    dh, *dc = (np.zeros_like(state) for state in states(layer))
    dh[...] = floats(generator(3), *dh.shape)
    layer.forward(xs)
    dxs = layer.backward(dys, (dh, *dc))
    dys[:, -1, :H] += dh[0]
    if bidirectional:
        dys[:, 0, H:] += dh[1]
    same(layer.backward(dys), dxs)


@every_cell
def test_outputs_that_nobody_uses_have_a_gradient_of_zero(cell):
    layer = stack(2, cell)
    xs, dys = sequences(layer)
    layer.forward(xs)
    d_final = states(layer)
    expected = layer.backward(np.zeros_like(dys), d_final)
    same(layer.backward(None, d_final), expected)


# ---- what every layer promises ----


@pytest.mark.parametrize("bidirectional", [False, True])
@every_cell
def test_backward_twice_is_the_same_and_changes_nothing_it_was_given(cell, bidirectional):
    layer = stack(2, cell, bidirectional=bidirectional, dropout=0.3)
    xs, dys = sequences(layer)
    state, d_final = states(layer), states(layer, 6)
    given = [xs, dys, *state, *d_final]
    before = [array.copy() for array in given]
    held = list(layer.grads)
    layer.forward(xs, state)
    results = []
    for _ in range(2):
        dxs = layer.backward(dys, d_final)
        results.append([a.copy() for a in (dxs, *layer.dstate, *held)])
    for first, second in zip(*results, strict=True):
        same(first, second)
    for array, copy in zip(given, before, strict=True):
        same(array, copy)
    assert all(grad.any() for grad in held)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_cell
def test_a_stack_computes_in_its_dtype(cell, dtype):
    layer = stack(2, cell, dtype, bidirectional=True, dropout=0.5)
    assert {str(array.dtype) for array in run(layer, states(layer), states(layer))} == {dtype}


def test_backward_needs_a_forward_pass_in_training_mode():
    layer = stack(2, dropout=0.5)
    _, dys = sequences(layer)
    with pytest.raises(RuntimeError, match=r"^TimeStack\.backward: .* call forward first"):
        layer.backward(dys)
    layer.train_flg = False
    layer.forward(sequences(layer)[0])
    with pytest.raises(RuntimeError, match=r"^TimeStack\.backward: .* training mode"):
        layer.backward(dys)


def test_arrays_of_another_shape_are_refused_by_name():
    layer = stack(2, "lstm", stateful=True)
    xs, dys = sequences(layer)
    h, c = states(layer)
    with pytest.raises(ValueError, match=rf"^TimeLSTM: expected xs of shape \(N, T, {D}\)"):
        layer.forward(dys)
    with pytest.raises(ValueError, match=rf"^TimeStack: expected h of shape \(2, {N}, {H}\)"):
        layer.forward(xs, (h[:1], c))
    with pytest.raises(ValueError, match=rf"^TimeStack: expected c of shape \(2, {N}, {H}\)"):
        layer.forward(xs, (h, c[:, :1]))
    with pytest.raises(ValueError, match=r"^TimeStack: expected the states \(h, c\), got 1 array"):
        layer.forward(xs, (h,))
    with pytest.raises(ValueError, match=r"^TimeStack: expected the states \(h, c\), got 1 array"):
        layer.set_state(h)
    layer.forward(xs)
    with pytest.raises(ValueError, match=rf"^TimeStack: expected dys of shape \({N}, {T}, {H}\)"):
        layer.backward(xs)
    with pytest.raises(ValueError, match=rf"^TimeStack: expected dc of shape \(2, {N}, {H}\)"):
        layer.backward(dys, (h, c[:1]))


def test_a_state_for_a_stack_that_keeps_none_is_refused():
    layer = stack()
    with pytest.raises(ValueError, match=r"^TimeStack: .*stateful=True"):
        layer.set_state(*states(layer))


def test_a_bidirectional_layer_begins_from_as_many_arrays_as_it_has():
    layer = TimeBiLSTM(*weights(generator(), 4), *weights(generator(), 4), stateful=True)
    with pytest.raises(TypeError, match=r"^TimeBiLSTM\.set_state: expected 4 arrays, got 3"):
        layer.set_state(*(np.zeros((N, H)) for _ in range(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, "input_size of 1 or more, got 0"),
        ({"hidden_size": 0}, "hidden_size of 1 or more, got 0"),
        ({"num_layers": 0}, "num_layers of 1 or more, got 0"),
        ({"cell": "mlp"}, "^TimeStack: cell 'mlp': expected rnn, lstm, gru, "),
        ({"nonlinearity": "sigmoid"}, "nonlinearity 'tanh' or 'relu', got 'sigmoid'"),
        ({"cell": "gru", "nonlinearity": "relu"}, "nonlinearity 'relu' is for cell 'rnn' only"),
        (
            {"cell": "min_gru", "bias": False},
            "bias=False is for cells 'rnn', 'lstm' and 'gru' only",
        ),
        ({"dropout": 1.0}, r"dropout ratio in \[0, 1\), got 1.0"),
    ],
)
def test_options_that_make_no_stack_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimeStack(**{"input_size": D, "hidden_size": H, **arguments})
