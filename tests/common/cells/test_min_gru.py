"""The state of a MinGRU is a running average."""

import math

import pytest

from common.cells.min_gru import MinGRU
from common.np import np
from tests.builders import D, H, N, close, floats, generator

pytestmark = pytest.mark.usefixtures("backend")


def test_two_steps_on_paper():
    """z = sigmoid(log 3) = 3/4 while x = 1, 1/4 while x = -1; the candidate is 2 x + 1."""
    cell = MinGRU(np.array([[math.log(3), 2.0]]), np.array([0.0, 1.0]))
    h1 = cell.forward(np.array([[1.0]]), np.array([[8.0]]))
    close(h1, np.array([[8 / 4 + 3 * 3 / 4]]))
    h2 = cell.forward(np.array([[-1.0]]), h1)
    close(h2, np.array([[4.25 * 3 / 4 - 1 / 4]]))
    dx, dh = cell.backward(np.array([[1.0]]))
    close(dh, np.array([[3 / 4]]))
    dz, dn = (-1 - 4.25) * 3 / 16, 1 / 4
    close(cell.grads[0], np.array([[-dz, -dn]]))
    close(cell.grads[1], np.array([dz, dn]))
    close(dx, np.array([[math.log(3) * dz + 2 * dn]]))


@pytest.mark.parametrize("bz, keeps", [(-100.0, True), (100.0, False)])
def test_the_gate_keeps_the_state_or_replaces_it_by_the_candidate(bz, keeps):
    b = np.concatenate([np.full(H, bz), np.full(H, 5.0)])
    cell, h = MinGRU(np.zeros((D, 2 * H)), b), floats(generator(), N, H)
    h2 = cell.forward(np.zeros((N, D)), cell.forward(np.zeros((N, D)), h))
    close(h2, h if keeps else np.full((N, H), 5.0))


def test_a_step_is_linear_in_the_state():
    rng = generator()
    cell, x = MinGRU.build(D, H, rng, "float64"), floats(rng, N, D)
    h, k = floats(rng, N, H), floats(rng, N, H)
    middle = cell.forward(x, cell.forward(x, (h + k) / 2))
    close(middle, (cell.forward(x, cell.forward(x, h)) + cell.forward(x, cell.forward(x, k))) / 2)


def test_a_bias_of_odd_length_is_refused():
    with pytest.raises(ValueError, match=r"^MinGRU: expected b of even length, got 5$"):
        MinGRU(np.zeros((D, 5)), np.zeros(5))
