"""The memory that the layers of a model use in turns."""

import numpy as np
import pytest

from common.kernels import ALIGNMENT, Workspace
from common.time_layers import TimeBiLSTM, TimeStack
from tests.builders import MODELS, generator, tiny_model, weights


def test_arrays_of_a_turn_have_their_shapes_and_share_nothing():
    workspace = Workspace()
    workspace.begin()
    first = workspace.empty((1000, 3), "float32")
    second = workspace.empty((5,), "float64")
    third = workspace.empty((2, 2, 7), "float32")  # beyond the block, which is a quarter larger
    more = workspace.empty((10_000,), "float32")
    arrays = [first, second, third, more]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [array.shape for array in arrays] == [(1000, 3), (5,), (2, 2, 7), (10_000,)]
    assert [array.dtype for array in arrays] == ["float32", "float64", "float32", "float32"]
    for number, array in enumerate(arrays):
        assert (array == number).all()
        assert array.flags.c_contiguous and array.flags.writeable


def test_the_next_turn_uses_the_memory_of_the_last_whatever_the_dtype():
    workspace = Workspace()
    turns = [workspace.begin()]
    first = workspace.empty((100,), "float32")
    turns.append(workspace.begin())
    second = workspace.empty((41,), "float64")
    assert np.shares_memory(first, second)
    third = workspace.empty((3,), "float32")
    assert (third.ctypes.data - second.ctypes.data) % ALIGNMENT == 0
    assert not np.shares_memory(second, third)
    assert turns == [1, 2] and workspace.turn == 2


def test_a_larger_array_gets_a_larger_block_that_is_then_kept():
    workspace = Workspace()
    arrays = []
    for size in (10, 1000, 10, 1200):
        workspace.begin()
        arrays.append(workspace.empty((size,), "float32"))
    small, large, small_again, a_little_larger = arrays
    assert not np.shares_memory(small, large)
    assert np.shares_memory(large, small_again)
    assert np.shares_memory(large, a_little_larger)


@pytest.mark.parametrize("shape", [(0,), (0, 5)])
def test_an_array_without_elements(shape):
    workspace = Workspace()
    workspace.begin()
    assert workspace.empty(shape, "float32").shape == shape
    assert workspace.empty((3,), "float32").shape == (3,)


@pytest.mark.parametrize("name", MODELS)
def test_the_layers_of_a_model_share_one_and_models_do_not(name):
    def workspaces(model):
        layers = [*model.layers, model.loss_layer]
        return {id(layer.workspace) for layer in layers if layer.workspace is not None}

    one, other = tiny_model(name), tiny_model(name)
    assert len(workspaces(one)) == 1
    assert not workspaces(one) & workspaces(other)
    wrapped = [layer.layer for layer in one.layers if hasattr(layer, "layer")]
    assert {id(layer.workspace) for layer in wrapped} <= workspaces(one)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_layers_of_a_stack_share_one(bidirectional):
    stack = TimeStack(4, 5, 3, "lstm", bidirectional=bidirectional)
    assert len({id(part.workspace) for part in stack.one_way}) == 1


def test_the_two_directions_share_one():
    rng = generator()
    both = TimeBiLSTM(*weights(rng, 4), *weights(rng, 4))
    assert both.left.workspace is both.right.workspace
