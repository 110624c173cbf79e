"""Rounds of mutual gating before an LSTM."""

import math

import pytest

from common.cells.mogrifier_lstm import MogrifierLSTM
from common.layers import LSTM
from common.np import np
from tests.builders import D, H, N, close, floats, generator, gradients_for, same, weights

pytestmark = pytest.mark.usefixtures("backend")


def compare_two_steps(cell, lstm, tolerance):
    rng = generator(1)
    mine = theirs = floats(rng, N, H), floats(rng, N, H)
    for _ in range(2):
        x = floats(rng, N, D)
        mine, theirs = cell.forward(x, *mine), lstm.forward(x, *theirs)
        for now, want in zip(mine, theirs, strict=True):
            close(now, want, tolerance)
        dstates = gradients_for(theirs)
        for now, want in zip(cell.backward(*dstates), lstm.backward(*dstates), strict=True):
            close(now, want, tolerance)
        for now, want in zip(cell.grads, lstm.grads, strict=False):
            close(now, want, tolerance)


def test_without_rounds_two_steps_are_those_of_the_lstm():
    plain = weights(generator(), 4)
    compare_two_steps(MogrifierLSTM(*plain, rounds=0), LSTM(*plain), 1e-12)


def test_gating_matrices_of_zero_gate_by_one():
    plain = weights(generator(), 4)
    gating = [np.zeros(shape) for shape in ((H, D), (D, H), (H, D), (D, H), (H, D))]
    compare_two_steps(MogrifierLSTM(*plain, *gating), LSTM(*plain), 1e-12)


def test_the_second_round_sees_what_the_first_has_gated():
    """The state doubles x where it is large and shuts it where it is very negative."""
    zeros = np.zeros((1, 4)), np.zeros((1, 4)), np.zeros(4)
    cell = MogrifierLSTM(*zeros, np.array([[100.0]]), np.array([[0.5]]), rounds=2)
    x, h, c = (np.array([[a], [b]]) for a, b in ((1.0, 1.0), (1.0, -1.0), (0.0, 0.0)))
    cell.forward(x, h, c)
    gated_x, gated_h, *_ = cell.lstm.cache
    close(gated_x, np.array([[2.0], [0.0]]))
    close(gated_h, np.array([[1 + math.tanh(0.5)], [-1.0]]))


def test_names_and_shapes_follow_the_rounds_and_the_rank():
    whole = MogrifierLSTM.build(D, H, generator(), "float64")
    assert whole.param_names[3:] == ("Q1", "R2", "Q3", "R4", "Q5")
    assert [M.shape for M in whole.params[3:]] == [(H, D), (D, H), (H, D), (D, H), (H, D)]
    low = MogrifierLSTM.build(D, H, generator(), "float64", rounds=2, rank=3)
    assert low.param_names[3:] == ("Q1_left", "Q1_right", "R2_left", "R2_right")
    assert [M.shape for M in low.params[3:]] == [(H, 3), (3, D), (D, 3), (3, H)]


def test_a_product_of_two_matrices_gates_as_the_whole_one():
    plain, rng = weights(generator(), 4), generator(2)
    left, right = floats(rng, H, 2), floats(rng, 2, D)
    low = MogrifierLSTM(*plain, left, right, rounds=1, rank=2)
    whole = MogrifierLSTM(*plain, left @ right, rounds=1)
    states = floats(rng, N, H), floats(rng, N, H)
    other = states
    for _ in range(2):
        x = floats(rng, N, D)
        states, other = low.forward(x, *states), whole.forward(x, *other)
        for now, want in zip(states, other, strict=True):
            close(now, want)
        low.backward(*gradients_for(states)), whole.backward(*gradients_for(states))
        close(low.grads[3], whole.grads[3] @ right.T)
        close(low.grads[4], left.T @ whole.grads[3])


def test_the_lstm_inside_shares_parameters_and_gradients():
    cell = MogrifierLSTM.build(D, H, generator(), "float64")
    for mine, inner in zip(
        [*cell.params[:3], *cell.grads[:3]], [*cell.lstm.params, *cell.lstm.grads], strict=True
    ):
        assert mine is inner
    same(cell.params[2], np.zeros(4 * H))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rounds": -1}, "expected 0 rounds or more, got -1"),
        ({"rank": 0}, "expected a rank of 1 or more, or None, got 0"),
        ({"rounds": 2}, "expected 2 gating matrices (Q1, R2), got 1"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        MogrifierLSTM(*weights(generator(), 4), np.zeros((H, D)), **options)
    assert str(error.value) == f"MogrifierLSTM: {message}"
