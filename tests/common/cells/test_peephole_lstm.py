"""What the peepholes see."""

import pytest

from common.cells.peephole_lstm import PeepholeLSTM
from common.layers import LSTM
from common.np import np
from tests.builders import D, H, N, close, floats, generator, gradients_for, same, weights

pytestmark = pytest.mark.usefixtures("backend")


def test_with_peepholes_of_zero_two_steps_are_those_of_the_lstm():
    rng = generator()
    plain = weights(rng, 4)
    lstm, cell = LSTM(*plain), PeepholeLSTM(*plain, np.zeros(3 * H))
    mine = theirs = floats(rng, N, H), floats(rng, N, H)
    for _ in range(2):
        x = floats(rng, N, D)
        mine, theirs = cell.forward(x, *mine), lstm.forward(x, *theirs)
        for now, want in zip(mine, theirs, strict=True):
            close(now, want, 1e-12)
        dstates = gradients_for(theirs)
        for now, want in zip(cell.backward(*dstates), lstm.backward(*dstates), strict=True):
            close(now, want, 1e-12)
        for now, want in zip(cell.grads, lstm.grads, strict=False):
            close(now, want, 1e-12)


def test_a_new_cell_has_peepholes_of_zero_that_learn():
    cell = PeepholeLSTM.build(D, H, generator(), "float64")
    same(cell.params[3], np.zeros(3 * H))
    rng = generator()
    cell.backward(*gradients_for(cell.forward(*(floats(rng, N, width) for width in (D, H, H)))))
    assert bool((cell.grads[3] != 0).all())


def steps_through_one_peephole(gate, c):
    """Two steps from the cell ``c``, with no weight but a peephole of 100 at ``gate``."""
    p = np.concatenate([np.full(H, 100.0 if gate == seen else 0.0) for seen in "fio"])
    cell = PeepholeLSTM(np.zeros((1, 4 * H)), np.zeros((H, 4 * H)), np.zeros(4 * H), p)
    h, c1 = cell.forward(np.zeros((N, 1)), np.zeros((N, H)), c)
    h, c2 = cell.forward(np.zeros((N, 1)), h, c1)
    return h, c2


def test_a_positive_cell_keeps_itself_through_the_forget_gates_peephole():
    c = np.ones((N, H))
    close(steps_through_one_peephole("f", c)[1], c)  # without the peephole half of it a step
    close(steps_through_one_peephole("f", -c)[1], 0 * c)


def test_the_output_gate_sees_the_new_cell():
    c = np.ones((N, H))
    h, c2 = steps_through_one_peephole("o", c)
    close(c2, c / 4)
    close(h, np.tanh(c / 4), 1e-10)  # 25 opens the gate, -25 shuts it
    close(steps_through_one_peephole("o", -c)[0], 0 * c, 1e-10)
