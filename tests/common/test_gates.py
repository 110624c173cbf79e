"""The order of the gates, and the way to PyTorch's order and back."""

import numpy as np
import pytest

from common.base_layer import GRU_GATES, LSTM_GATES, TORCH_LSTM_GATES, reorder_gates, split_gates
from tests.builders import H, N, floats, generator, same


def test_the_gates_stand_side_by_side_in_the_order_f_g_i_o():
    f, g, i, o = split_gates(np.array([[1, 1, 2, 2, 3, 3, 4, 4]]))
    assert (LSTM_GATES, f.tolist(), o.tolist()) == ("fgio", [[1, 1]], [[4, 4]])
    assert (g.tolist(), i.tolist()) == ([[2, 2]], [[3, 3]])


def test_split_gates_gives_views_so_that_writing_one_writes_the_matrix():
    A = np.zeros((N, 3 * H))
    r, z, n = split_gates(A, GRU_GATES)
    z[...] = 1
    assert all(np.shares_memory(gate, A) for gate in (r, z, n))
    assert A.sum() == A[:, H : 2 * H].sum() == N * H


def test_reordering_moves_blocks_by_the_name_of_their_gate():
    A = np.array([[1, 1, 2, 2, 3, 3, 4, 4]])  # f, g, i, o
    moved = reorder_gates(A, LSTM_GATES, TORCH_LSTM_GATES)  # i, f, g, o
    assert moved.tolist() == [[3, 3, 1, 1, 2, 2, 4, 4]]
    assert A.tolist() == [[1, 1, 2, 2, 3, 3, 4, 4]]


@pytest.mark.parametrize("shape", [(N, 4 * H), (4 * H,)])
def test_reordering_there_and_back_changes_nothing(shape):
    A = floats(generator(), *shape)
    there = reorder_gates(A, LSTM_GATES, TORCH_LSTM_GATES)
    assert not np.array_equal(there, A)
    same(reorder_gates(there, TORCH_LSTM_GATES, LSTM_GATES), A)


@pytest.mark.parametrize(
    ("width", "source", "target"), [(8, "fgio", "rzn"), (8, "fgio", "fgi"), (9, "fgio", "ifgo")]
)
def test_orders_of_other_gates_or_widths_are_refused(width, source, target):
    with pytest.raises(ValueError, match=f"{source}.*{target}"):
        reorder_gates(np.zeros((N, width)), source, target)
