"""What is shown of a layer is what its forward pass computes, in every model and for every cell."""

import numpy as np
import pytest

from common.base_layer import Layer
from common.perplexity.protocols import evaluation
from common.time_layers import cells_by_name
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm
from tests.builders import H, V, awd_rnnlm, close, generator, ids, same
from tests.common.time_layers.test_cell import TwoTrack
from train.inspection.activations import LayerActivations, activations, recurrent_layers

LENGTH = 12
MODELS = {
    "SimpleRnnlm": lambda: SimpleRnnlm(V, 4, H, rng=1, dtype="float64"),
    "Rnnlm": lambda: Rnnlm(V, 4, H, rng=1, dtype="float64"),
    "BetterRnnlm": lambda: BetterRnnlm(V, H, H, rng=1, dtype="float64"),
    "BetterRnnlm of GRU": lambda: BetterRnnlm(V, H, H, rng=1, dtype="float64", cell="gru"),
    "AwdRnnlm": lambda: awd_rnnlm(0.4, num_layers=1, projection=True, rng=1, dtype="float64"),
    "AwdRnnlm of three": lambda: awd_rnnlm(0.4, num_layers=3, rng=1, dtype="float64"),
    **{
        f"Rnnlm of {name}": lambda name=name: Rnnlm(V, 4, H, rng=1, dtype="float64", cell=name)
        for name in cells_by_name()
    },
    "AwdRnnlm of minGRU": lambda: AwdRnnlm(V, 4, H, 2, rng=1, dtype="float64", cell="min_gru"),
    "a cell of one's own": lambda: Rnnlm(V, 4, H, rng=1, dtype="float64", cell=TwoTrack),
}


def tokens():
    return ids(generator(2), V, LENGTH)


def outputs(model, xs):
    """What each recurrent layer puts out in one window of all steps."""
    found, hs = [], xs[None]
    with evaluation(model):
        for layer in model.layers:
            layer.train_flg = False
            hs = layer.forward(hs)
            if getattr(layer, "state_names", ()):
                found.append((hs[0], [state[0].copy() for state in layer.state]))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_first_state_is_the_layers_output_and_the_last_row_its_last_state(name):
    model = MODELS[name]()
    found = activations(model, tokens())
    expected = outputs(model, tokens())
    assert len(found) == len(expected)
    for layer, (hs, last) in zip(found, expected, strict=True):
        first = next(iter(layer.states.values()))
        close(first, hs)
        for values, state in zip(layer.states.values(), last, strict=True):
            close(values[-1], state)


@pytest.mark.parametrize("name", [name for name in MODELS if "own" not in name])
def test_states_and_gates_obey_the_equations(name):
    for layer in activations(MODELS[name](), tokens()):
        h, gates = layer.states["h"], layer.gates
        before = np.concatenate([np.zeros((1, h.shape[1])), h[:-1]])
        if "c" in layer.states:
            c = layer.states["c"]
            c_before = np.concatenate([np.zeros((1, c.shape[1])), c[:-1]])
            close(gates["f"] * c_before + gates["g"] * gates["i"], c)
        elif "r" in gates:
            close((1 - gates["z"]) * gates["n"] + gates["z"] * before, h)
        elif "z" in gates:
            close((1 - gates["z"]) * before + gates["z"] * gates["n"], h)


@pytest.mark.parametrize(
    ("name", "saturating"),
    [("Rnnlm", "fio"), ("BetterRnnlm of GRU", "rz"), ("SimpleRnnlm", ""), ("AwdRnnlm", "fio")],
)
def test_candidates_are_no_gates_that_open_and_shut(name, saturating):
    for layer in activations(MODELS[name](), tokens()):
        assert "".join(layer.saturating) == saturating


def test_a_cell_that_tells_no_gates_shows_its_states_by_name():
    (layer,) = activations(MODELS["a cell of one's own"](), tokens())
    assert {name: values.shape for name, values in layer.states.items()} == {
        "h": (LENGTH, H),
        "c": (LENGTH, H + 2),
    }
    assert layer.gates == {}


def test_looking_leaves_the_training_state_and_drops_nothing():
    model = MODELS["AwdRnnlm of three"]()
    model.forward(tokens()[None], tokens()[None])
    before = model.get_state()
    found = [activations(model, tokens()) for _ in range(2)]
    for layer, again in zip(*found, strict=True):
        same(layer.states["h"], again.states["h"])
    for own, kept in zip(model.get_state(), before, strict=True):
        for state, expected in zip(own, kept, strict=True):
            same(state, expected)


def test_each_recurrent_layer_is_found_once():
    model = MODELS["AwdRnnlm of three"]()
    assert [type(layer).__name__ for layer in recurrent_layers(model)] == ["TimeLSTM"] * 3


def test_the_first_token_can_be_left_out():
    layer = LayerActivations("rnn", {"h": np.arange(6).reshape(3, 2)}, {"f": np.ones((3, 2))})
    assert layer.without_first().states["h"].tolist() == [[2, 3], [4, 5]]
    assert layer.without_first().gates["f"].shape == (2, 2)


def test_what_cannot_be_looked_into_is_refused():
    model = MODELS["Rnnlm"]()
    with pytest.raises(ValueError, match=f"expected ids in 0..{V - 1}, got {V}"):
        activations(model, np.array([V]))
    with pytest.raises(ValueError, match="too short"):
        activations(model, np.array([], int))
    with pytest.raises(TypeError, match="expected a model with layers"):
        activations(Layer(), tokens())
    model.layers = [model.layers[0], model.layers[-1]]
    with pytest.raises(ValueError, match="Rnnlm has no recurrent layer"):
        activations(model, tokens())
