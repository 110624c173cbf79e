"""The contract that every layer signs, one step or T steps."""

import copy
import re
import sys

import numpy
import pytest

from common.base_layer import (
    GRU_GATES,
    LSTM_GATES,
    TORCH_LSTM_GATES,
    Layer,
    check_sizes,
    reorder_gates,
    split_gates,
)
from common.np import np
from tests.builders import (
    CELLS,
    LAYERS,
    TIME_LAYERS,
    WITH_LOSS,
    D,
    H,
    N,
    T,
    V,
    as_tuple,
    close,
    floats,
    generator,
    gradients_for,
    ids,
    layer_and_inputs,
    layer_class,
    run,
    same,
    spoil,
)

every_layer = pytest.mark.parametrize("name", LAYERS)
on_both = pytest.mark.usefixtures("backend")


def arrays(values):
    return [x for x in values if hasattr(x, "dtype")]


def cached_arrays(layer):
    parts = (layer.left, layer.right) if hasattr(layer, "left") else (layer,)
    return [x for part in parts for x in arrays(part.cache)]


@on_both
@every_layer
def test_backward_twice_gives_the_same_answer_and_spoils_nothing(name):
    layer, inputs = layer_and_inputs(name)
    douts = gradients_for(layer.forward(*inputs))
    held = [*arrays(inputs), *arrays(douts), *layer.params, *cached_arrays(layer)]
    before = copy.deepcopy(held)
    results = []
    for _ in range(2):
        returned = layer.backward(*douts)
        returned = returned if isinstance(returned, tuple) else (returned,)
        results.append(copy.deepcopy([*arrays(returned), *layer.grads]))
    assert results[0]
    for first, second in zip(*results, strict=True):
        same(second, first)
    for now, then in zip(held, before, strict=True):
        same(now, then)


@every_layer
def test_backward_before_forward_names_the_layer(name):
    forwarded, inputs = layer_and_inputs(name)
    douts = gradients_for(forwarded.forward(*inputs))
    fresh, _ = layer_and_inputs(name)
    with pytest.raises(RuntimeError, match=rf"^{type(fresh).__name__}\.backward.*forward"):
        fresh.backward(*douts)


@on_both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_layer
def test_a_layer_computes_in_the_dtype_of_its_parameters(name, dtype):
    layer, inputs = layer_and_inputs(name, dtype)
    outputs, _, dinputs = run(layer, inputs)
    results = [*(y for y in outputs if y.shape), *arrays(dinputs), *layer.grads]
    assert results
    assert [str(x.dtype) for x in results] == [dtype] * len(results)


@on_both
@pytest.mark.parametrize("name", [n for n in TIME_LAYERS if layer_and_inputs(n)[0].params])
def test_a_time_layer_in_float32_stays_in_float32_when_float64_comes_in(name):
    layer, _ = layer_and_inputs(name, "float32")
    _, inputs = layer_and_inputs(name, "float64")
    outputs, _, dinputs = run(layer, inputs)
    assert {str(x.dtype) for x in [*outputs, *arrays(dinputs), *layer.grads]} == {"float32"}


@on_both
@pytest.mark.parametrize("name", [n for n in LAYERS if layer_and_inputs(n)[0].params])
def test_gradients_are_written_into_the_same_arrays(name):
    layer, inputs = layer_and_inputs(name)
    held = list(layer.grads)
    assert [g.shape for g in held] == [p.shape for p in layer.params]
    run(layer, inputs)
    for array, grad in zip(held, layer.grads, strict=True):
        assert array is grad
        assert float(abs(array).sum()) > 0


@on_both
@every_layer
def test_a_second_window_overwrites_the_gradients_of_the_first(name):
    layer, inputs = layer_and_inputs(name)
    _, _, expected = run(layer, inputs)
    expected = copy.deepcopy([*arrays(expected), *layer.grads])
    layer, inputs = layer_and_inputs(name)
    for grad in layer.grads:
        grad[...] = 99
    _, _, returned = run(layer, inputs)
    for now, want in zip([*arrays(returned), *layer.grads], expected, strict=True):
        same(now, want)


@on_both
@every_layer
def test_an_output_that_is_changed_in_place_is_refused_or_does_not_matter(name, backend):
    if backend == "gpu":
        pytest.skip("CuPy has no arrays that are read-only")
    plain, inputs = layer_and_inputs(name)
    _, douts, expected = run(plain, inputs)
    layer, inputs = layer_and_inputs(name)
    for y in as_tuple(layer.forward(*inputs)):
        spoil(y)
    returned = as_tuple(layer.backward(*douts))
    for now, want in zip(
        [*arrays(returned), *layer.grads], [*arrays(expected), *plain.grads], strict=True
    ):
        same(now, want)


def strided(x):
    """An equal array whose elements lie apart in memory."""
    wide = np.zeros((*x.shape, 2), dtype=x.dtype)
    wide[..., 0] = x
    assert not wide[..., 0].flags.c_contiguous
    return wide[..., 0]


@on_both
@every_layer
def test_inputs_and_gradients_may_be_strided_views(name):
    plain, inputs = layer_and_inputs(name)
    outputs, douts, dinputs = run(plain, inputs)
    other, _ = layer_and_inputs(name)
    outputs2 = other.forward(*(strided(x) for x in inputs))
    dinputs2 = other.backward(*(strided(dy) if hasattr(dy, "dtype") else dy for dy in douts))
    outputs2 = outputs2 if isinstance(outputs2, tuple) else (outputs2,)
    dinputs2 = dinputs2 if isinstance(dinputs2, tuple) else (dinputs2,)
    for now, want in zip(
        [*outputs2, *arrays(dinputs2), *other.grads],
        [*outputs, *arrays(dinputs), *plain.grads],
        strict=True,
    ):
        close(now, want)


# Layers whose input has a width or a number of axes that must fit; the others take any shape.
ANY_SHAPE = ("Softmax", "Sigmoid", "Dropout", "SigmoidWithLoss")
PICKY = [n for n in LAYERS if n not in ANY_SHAPE]


WINDOWS_TOO = ("Embedding", "MatMul", "Affine")  # of one step, and of N rows with T steps


@pytest.mark.parametrize("name", PICKY)
def test_an_input_of_another_rank_is_refused_by_name(name):
    layer, (x, *rest) = layer_and_inputs(name)
    x = x[..., None, None] if name in WINDOWS_TOO else x[..., None]
    got = re.escape(str(x.shape))
    with pytest.raises(ValueError, match=rf"^{type(layer).__name__}: expected \w+ of shape.*{got}"):
        layer.forward(x, *rest)


ANY_WIDTH = ("Embedding", "Loss", "Dropout", "Penalty", "Attention")
WIDE = [n for n in PICKY if not any(part in n for part in ANY_WIDTH)]


@pytest.mark.parametrize("name", WIDE)
def test_an_input_of_another_width_is_refused_by_name(name):
    layer, (x, *rest) = layer_and_inputs(name)
    wrong = floats(generator(), *x.shape[:-1], D + 1)
    with pytest.raises(ValueError) as error:
        layer.forward(wrong, *rest)
    who = {"TimeWeightDrop": "TimeLSTM", "TimeBiLSTM": "TimeLSTM"}.get(name)  # the layer inside
    message = str(error.value)
    assert message.startswith(f"{who or type(layer).__name__}: expected x")
    assert f"{D})" in message.split("got")[0]
    assert message.endswith(f"got {wrong.shape}")


@pytest.mark.parametrize("name", TIME_LAYERS)
def test_a_gradient_of_another_length_is_refused_by_name(name):
    layer, inputs = layer_and_inputs(name)
    ys = layer.forward(*inputs)
    wrong = floats(generator(), N, T + 1, ys.shape[2])
    expected = rf"^{type(layer).__name__}: expected \w+ of shape .*, got \({N}, {T + 1}, "
    with pytest.raises(ValueError, match=expected):
        layer.backward(wrong)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_never_broadcasts_a_state_of_another_batch(name):
    cell, (x, *states) = layer_and_inputs(name)
    for k in range(len(states)):
        wrong = [state[:1] if k == j else state for j, state in enumerate(states)]
        with pytest.raises(ValueError, match=type(cell).__name__):
            cell.forward(x, *wrong)


@pytest.mark.parametrize("name", ["SoftmaxWithLoss", "TimeSoftmaxWithLoss"])
def test_one_hot_targets_must_be_as_wide_as_the_scores(name):
    layer, (x, _) = layer_and_inputs(name)
    with pytest.raises(ValueError, match=rf"^{name}: expected "):
        layer.forward(x, np.ones((*x.shape[:-1], V - 1)))


@pytest.mark.parametrize("name", WITH_LOSS)
def test_one_target_for_every_score(name):
    layer, (x, t) = layer_and_inputs(name)
    with pytest.raises(ValueError, match=rf"^{name}: expected t"):
        layer.forward(x, t[:1])


READ_IDS = ["Embedding", "TimeEmbedding", "SoftmaxWithLoss", "TimeSoftmaxWithLoss"]


@pytest.mark.parametrize("name", READ_IDS)
@pytest.mark.parametrize("bad", [V, V + 100, -2])
def test_an_id_out_of_range_is_refused_not_wrapped(name, bad):
    layer, inputs = layer_and_inputs(name)
    inputs[-1].flat[1] = bad
    with pytest.raises(ValueError, match=rf"^{name}: expected \w+ in 0\.\.{V - 1}, got {bad}$"):
        layer.forward(*inputs)


@pytest.mark.parametrize("name", READ_IDS)
def test_ids_are_integers(name):
    layer, (*scores, integers) = layer_and_inputs(name)
    with pytest.raises(TypeError, match=rf"^{name}: expected \w+ of integers, got float64"):
        layer.forward(*scores, integers.astype("float64"))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("name", READ_IDS)
def test_ids_may_be_integers_of_any_width(name, dtype):
    layer, (*scores, integers) = layer_and_inputs(name)
    expected = layer.forward(*scores, integers)
    same(layer.forward(*scores, integers.astype(dtype)), expected)


@pytest.mark.parametrize("name", [*CELLS, *(n for n in TIME_LAYERS if "RU" in n or "ST" in n)])
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_weights_that_do_not_fit_each_other_are_refused_by_name(name, wrong):
    layer, _ = layer_and_inputs(name)
    params = [p if k != wrong else p[..., :-1] for k, p in enumerate(layer.params)]
    part = "TimeLSTM" if name == "TimeBiLSTM" else type(layer).__name__
    with pytest.raises(ValueError, match=rf"^{part}: expected "):
        type(layer)(*params)


@pytest.mark.parametrize("name", ["Affine", "TimeAffine"])
def test_a_bias_of_another_width_is_refused_by_name(name):
    rng = generator()
    with pytest.raises(ValueError, match=rf"^{name}: expected b of shape \({H},\), got \({V},\)"):
        layer_class(name)(floats(rng, D, H), floats(rng, V))


@pytest.mark.parametrize("name", ["Dropout", "TimeDropout"])
@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_dropout_ratio_that_leaves_nothing_is_refused(name, ratio):
    with pytest.raises(ValueError, match=rf"^{name}: expected a dropout ratio in \[0, 1\)"):
        layer_class(name)(ratio)


def test_the_error_of_a_shape_says_who_what_was_expected_and_what_came():
    with pytest.raises(ValueError) as error:
        Layer().expect_shape("xs", np.zeros((20, 35, 100)), "N", "T", 650)
    assert str(error.value) == "Layer: expected xs of shape (N, T, 650), got (20, 35, 100)"


def test_ids_of_an_empty_array_are_in_range():
    assert Layer().expect_ids("ids", ids(generator(), V, 0), V) is None


# ---- the order of the gates, and the way to PyTorch's order and back ----


def test_the_gates_stand_side_by_side_in_the_order_f_g_i_o():
    f, g, i, o = split_gates(np.array([[1, 1, 2, 2, 3, 3, 4, 4]]))
    assert (LSTM_GATES, f.tolist(), o.tolist()) == ("fgio", [[1, 1]], [[4, 4]])
    assert (g.tolist(), i.tolist()) == ([[2, 2]], [[3, 3]])


def test_split_gates_gives_views_so_that_writing_one_writes_the_matrix():
    A = np.zeros((N, 3 * H))
    r, z, n = split_gates(A, GRU_GATES)
    z[...] = 1
    assert all(numpy.shares_memory(gate, A) for gate in (r, z, n))
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
    assert not numpy.array_equal(there, A)
    same(reorder_gates(there, TORCH_LSTM_GATES, LSTM_GATES), A)


@pytest.mark.parametrize(
    ("width", "source", "target"), [(8, "fgio", "rzn"), (8, "fgio", "fgi"), (9, "fgio", "ifgo")]
)
def test_orders_of_other_gates_or_widths_are_refused(width, source, target):
    with pytest.raises(ValueError, match=f"{source}.*{target}"):
        reorder_gates(np.zeros((N, width)), source, target)


def test_a_size_that_no_array_can_have_is_refused():
    with pytest.raises(ValueError, match=f"expected H of 1 or more, {sys.maxsize} at most, got"):
        check_sizes("Model", H=sys.maxsize + 1)
    check_sizes("Model", H=sys.maxsize)
