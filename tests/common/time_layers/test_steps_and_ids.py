"""Layers that change what a step reads: one-hot rows, the first step, the last, a cell's inputs."""

import numpy as np
import pytest

from common.gradient_check import check_layer
from common.time_layers import TimeLSTM
from common.time_layers.cell_inputs import TimeCellInputs
from common.time_layers.one_hot import TimeOneHot
from common.time_layers.steps import TimeFirstStep, TimeLastStep
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same, weights


def test_ids_become_rows_of_the_identity_matrix():
    layer, xs = TimeOneHot(V, "float64"), ids(generator(), V, N, T)
    same(layer.forward(xs), np.eye(V)[xs])
    assert layer.backward(np.zeros((N, T, V))) is None
    with pytest.raises(ValueError, match=rf"TimeOneHot: expected xs in 0\.\.{V - 1}, got {V}"):
        layer.forward(np.full((N, T), V))
    with pytest.raises(TypeError, match="TimeOneHot: expected xs of integers"):
        layer.forward(np.zeros((N, T)))


def test_one_vector_stands_at_the_first_step_and_zeros_follow():
    layer, x = TimeFirstStep(T), floats(generator(), N, D)
    ys = layer.forward(x)
    same(ys[:, 0], x)
    assert ys.shape == (N, T, D) and not ys[:, 1:].any()


def test_the_last_step_is_kept():
    xs = floats(generator(), N, T, H)
    same(TimeLastStep().forward(xs), xs[:, -1])


@pytest.mark.parametrize("layer", [TimeFirstStep(T), TimeLastStep()])
def test_the_gradient_of_a_step_goes_to_that_step(layer):
    shape = (N, D) if isinstance(layer, TimeFirstStep) else (N, T, D)
    report = check_layer(layer, floats(generator(), *shape), rng=generator(1))
    assert report.ok, report


@pytest.mark.parametrize("layer", [TimeOneHot(V), TimeFirstStep(T), TimeLastStep()])
def test_backward_needs_a_forward_pass(layer):
    layer.cache = None
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}.backward.*call forward first"):
        layer.backward(np.zeros((N, T, V)))


def cell_inputs():
    return TimeCellInputs(TimeLSTM(*weights(generator(), 4), stateful=True))


def test_every_step_holds_its_input_and_the_state_before_it():
    layer, xs = cell_inputs(), floats(generator(1), N, 2 * T, D)
    hs = TimeLSTM(*layer.params).forward(xs)
    windows = [layer.forward(xs[:, :T]), layer.forward(xs[:, T:])]
    ys = np.concatenate(windows, axis=1)
    same(ys[:, :, :D], xs)
    assert not ys[:, 0, D:].any()
    close(ys[:, 1:, D:], hs[:, :-1])


def test_the_gradients_of_the_second_window_reach_weights_inputs_and_first_states():
    layer, rng = cell_inputs(), generator(1)
    layer.forward(floats(rng, N, T, D))
    state = layer.get_state()

    def of_states():
        return {
            name: (array, d)
            for name, array, d in zip(layer.state_names, state, layer.dstate, strict=True)
        }

    report = check_layer(
        layer,
        floats(rng, N, T, D),
        rng=rng,
        prepare=lambda: layer.set_state(*state),
        extra=of_states,
    )
    assert report.ok, report
