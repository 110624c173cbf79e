"""What layer normalization makes of rows."""

import pytest

from common.cells.layer_norm_lstm import LayerNormLSTM, normalize
from common.np import np
from tests.builders import D, H, N, close, floats, generator, run, same

pytestmark = pytest.mark.usefixtures("backend")


def a_cell(dtype="float64"):
    return LayerNormLSTM.build(D, H, generator(), dtype)


def test_a_row_on_paper():
    x_hat, std = normalize(np.array([[1.0, 3.0], [5.0, 5.0]]))
    close(std, np.sqrt(np.array([[1 + 1e-5], [1e-5]])))
    close(x_hat, np.array([[-1.0, 1.0], [0.0, 0.0]]) / std)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_equal_values_stay_finite_forward_and_backward(dtype):
    """x, h and c of zeros, and weights of ones: not one of the three norms has a variance."""
    cell = a_cell(dtype)
    for k in range(2):
        cell.params[k][...] = 1
    zeros = [np.zeros((N, width), dtype=dtype) for width in (D, H, H)]
    ones = [np.ones((N, width), dtype=dtype) for width in (D, H, H)]
    for inputs in (zeros, ones):
        outputs, _, returned = run(cell, inputs)
        assert all(bool(np.isfinite(a).all()) for a in [*outputs, *returned, *cell.grads])
    h, c = cell.forward(*zeros)
    same(h, zeros[1])
    same(c, zeros[2])


def test_a_larger_input_or_state_does_not_change_the_gates():
    rng = generator(1)
    cell, other = a_cell(), a_cell()
    h = other_h = floats(rng, N, H)
    c = other_c = floats(rng, N, H)
    for _ in range(2):
        x = 1e3 * floats(rng, N, D)  # beside these sums the 1e-5 under the root is nothing
        h, c = cell.forward(x, 1e3 * h, c)
        other_h, other_c = other.forward(7 * x, 7e3 * other_h, other_c)
        close(other_h, h, 1e-9)
        close(other_c, c, 1e-9)


def test_a_new_cell_has_gains_of_one_and_biases_of_zero():
    _, _, b, gain_x, gain_h, gain_c, b_c = a_cell().params
    for gain in (gain_x, gain_h, gain_c):
        same(gain, np.ones_like(gain))
    for bias in (b, b_c):
        same(bias, np.zeros_like(bias))
