"""Every gated layer tells what its gates were: with them its equations give the states again."""

import pytest

from common.layers import GRU, LSTM, RNN
from common.np import np
from common.time_layers import TimeCell, TimeGRU, TimeLSTM, TimeRNN, TimeWeightDrop
from tests.builders import D, H, N, T, cell_weights, close, floats, generator, same
from tests.common.cells.examples import KINDS, inputs_for, random_cell

GATED = ["LSTM", "GRU", *KINDS]


def cell_named(name, dtype="float64"):
    if name in KINDS:
        return random_cell(name, dtype)
    return {"LSTM": LSTM, "GRU": GRU}[name](*cell_weights(name, dtype))


def next_states(cell, gates, states):
    """The equations after the gates, of the three families of cells; the state that they fix."""
    if set(gates) == set("fgio"):
        return states[1] * gates["f"] + gates["g"] * gates["i"]
    old, new = (gates["z"], 1 - gates["z"]) if "r" in gates else (1 - gates["z"], gates["z"])
    return old * states[0] + new * gates["n"]


@pytest.mark.parametrize("name", GATED)
def test_the_gates_of_a_step_give_its_state_again(name, backend):
    cell = cell_named(name)
    x, *states = inputs_for(cell)
    after = cell.forward(x, *states)
    gates = cell.gate_values()
    assert "".join(gates) == cell.gates
    assert all(gate.shape == (N, H) for gate in gates.values())
    expected = after[1] if isinstance(after, tuple) else after
    close(next_states(cell, gates, states), expected)


@pytest.mark.parametrize("name", GATED)
def test_the_gates_of_a_window_are_those_of_its_steps(name, backend):
    cell = cell_named(name)
    kind = {"LSTM": TimeLSTM, "GRU": TimeGRU}.get(name)
    layer = kind(*cell.params, stateful=True) if kind else TimeCell(cell_named(name), True)
    xs = floats(generator(5), N, T, D)
    states = [np.zeros((N, width)) for width in cell.state_sizes]
    for _ in range(2):  # the second window goes on from the first
        layer.forward(xs)
        steps = []
        for t in range(T):
            after = cell.forward(xs[:, t], *states)
            states = list(after) if isinstance(after, tuple) else [after]
            steps.append(cell.gate_values())
        found = layer.gate_values()
        layer.backward(np.ones((N, T, H)))
        again = layer.gate_values()
        for gate in cell.gates:
            close(found[gate], np.stack([step[gate] for step in steps], axis=1))
            same(again[gate], found[gate])  # going back changes nothing


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("steps", [1, T])
def test_the_compiled_window_leaves_the_gates_of_the_clear_one(name, steps):
    kind = {"LSTM": TimeLSTM, "GRU": TimeGRU}[name]
    xs = floats(generator(5), 1, steps, D)
    found = []
    for dtype in ("float32", "float64"):  # the first is compiled where there is a compiler
        layer = kind(*cell_weights(name, dtype))
        layer.forward(xs.astype(dtype))
        found.append(layer.gate_values())
    for gate in layer.gates:
        close(found[0][gate].astype("float64"), found[1][gate], 2e-5)


def test_a_layer_around_another_tells_its_gates():
    lstm = TimeLSTM(*cell_weights("TimeLSTM"))
    layer = TimeWeightDrop(lstm, 0.5, generator(3))
    layer.train_flg = False
    layer.forward(floats(generator(5), N, T, D))
    same(layer.gate_values()["f"], lstm.gate_values()["f"])


def test_what_has_no_gates_tells_none():
    xs = floats(generator(5), N, T, D)
    for layer in (TimeRNN(*cell_weights("TimeRNN")), TimeCell(RNN(*cell_weights("RNN")))):
        layer.forward(xs)
        assert layer.gate_values() == {}


@pytest.mark.parametrize("name", ["TimeLSTM", "TimeGRU"])
def test_before_a_forward_pass_there_is_nothing_to_tell(name):
    layer = {"TimeLSTM": TimeLSTM, "TimeGRU": TimeGRU}[name](*cell_weights(name))
    with pytest.raises(RuntimeError, match=name):
        layer.gate_values()
