"""Rows in place of an array: what an embedding writes, and what outside code makes of it."""

import copy
import pickle

import numpy
import pytest

from common.kernels.passes import add_rows, all_finite, norm
from common.np import memory_address, np, same_elements, to_cpu
from common.optimizer import UniqueParameters, clip_grads, clip_grads_value
from common.row_gradient import RowGradient, dense
from common.time_layers import TimeAffine, TimeEmbedding
from common.time_layers import embedding as embedding_module
from models import BetterRnnlm, Rnnlm
from models.language_model import tied_output
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same

on_both = pytest.mark.usefixtures("backend")


def pair(seed=0, read=(1, 4, 4, 2), dtype="float64"):
    """A gradient of rows, and the array that it stands for."""
    rng = generator(seed)
    rows, array = floats(rng, len(read), D, dtype=dtype), np.zeros((V, D), dtype=dtype)
    gradient = RowGradient(array)
    for table in (gradient, array):
        add_rows(table, np.asarray(read), rows)
    return gradient, array


# ---- what is written ----


READ = {
    "ids that repeat": [[3, 1, 3], [3, 1, 6]],
    "one id": [[2, 2, 2], [2, 2, 2]],
    "all ids": [[0, 1, 2, 3], [4, 5, 6, 0]],
    "the last and the first": [[6, 0]],
}


@on_both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ratio", [0.0, 0.4])
@pytest.mark.parametrize("read", READ)
def test_an_embedding_writes_the_rows_that_it_would_write_into_an_array(read, ratio, dtype):
    rng = generator()
    W, xs = floats(rng, V, D, dtype=dtype), np.asarray(READ[read])
    plain, sparse = (TimeEmbedding(W, ratio, generator(3), which) for which in (False, True))
    (gradient,) = sparse.grads
    for _ in range(2):  # the second window leaves nothing of the first
        dys = floats(rng, *xs.shape, D, dtype=dtype)
        same(sparse.forward(xs), plain.forward(xs))
        for layer in (sparse, plain):
            layer.backward(dys)
        assert sparse.grads[0] is gradient
        same(gradient.dense(), plain.grads[0])
        xs = xs[:, ::-1][:, :2]
    assert gradient.rows.dtype == dtype


def test_on_the_cpu_each_id_stands_there_once_in_ascending_order():
    gradient, _ = pair(read=(6, 0, 6, 3, 0))
    assert gradient.ids.tolist() == [0, 3, 6]
    assert gradient.rows.shape == (3, D)


def test_on_a_gpu_nobody_waits_to_learn_how_many_ids_differ(waits):
    gradient, array = pair(read=(6, 0, 6, 3, 0))
    assert waits == []
    assert gradient.ids.get().tolist() == [0, 0, 3, 6, 6]
    assert not gradient.rows.get()[[1, 4]].any()
    close(gradient.dense(), array)


@on_both
def test_more_rows_are_added_to_those_that_are_there():
    gradient, array = pair()
    for table in (gradient, array):
        add_rows(table, np.asarray([5, 1]), np.ones((2, D)))
    close(gradient.dense(), array)


def test_an_id_out_of_range_is_refused():
    gradient, _ = pair()
    with pytest.raises(ValueError, match=rf"add_rows: expected ids in 0\.\.{V - 1}, got {V}"):
        add_rows(gradient, np.array([V]), np.ones((1, D)))


def test_a_gradient_of_something_else_than_a_table_is_refused():
    with pytest.raises(ValueError, match=r"RowGradient: expected a table \(V, D\), got \(3,\)"):
        RowGradient(np.zeros(3))


# ---- which embeddings have it ----


def kinds(model):
    """The types of the embedding's gradient in the model's list and in the layer's."""
    assert model.grads[0] is model.layers[0].grads[0]
    return type(model.grads[0])


def test_a_model_chooses_by_the_size_of_its_vocabulary(monkeypatch):
    monkeypatch.setattr(embedding_module, "MANY_ROWS", 9)
    for size, kind in ((9, numpy.ndarray), (10, RowGradient)):
        assert kinds(Rnnlm(size, D, H)) is kind
        assert kinds(BetterRnnlm(size, D, H, tied=False)) is kind
        assert kinds(BetterRnnlm(size, H, H)) is numpy.ndarray  # tied
    assert kinds(Rnnlm(10, D, H, sparse=False)) is numpy.ndarray
    assert kinds(Rnnlm(3, D, H, sparse=True)) is RowGradient
    assert type(TimeEmbedding(np.ones((99, D))).grads[0]) is numpy.ndarray  # as in the book


def test_ten_thousand_words_are_not_many():
    assert 10_000 <= embedding_module.MANY_ROWS < 33_278  # of the Penn Treebank, of WikiText-2


def test_a_tied_weight_is_refused():
    expected = "RowGradient: a tied weight has a gradient in every row"
    with pytest.raises(ValueError, match=expected):
        BetterRnnlm(V, H, H, sparse=True)
    with pytest.raises(ValueError, match=expected):
        tied_output(TimeEmbedding(np.ones((V, D)), sparse=True))


@pytest.mark.parametrize("embedding_first", [True, False])
def test_a_weight_that_outside_code_ties_is_refused_when_training_starts(embedding_first):
    W = floats(generator(), V, D)
    layers = [TimeEmbedding(W, sparse=True), TimeAffine(W.T, np.zeros(V))]
    layers = layers if embedding_first else layers[::-1]
    with pytest.raises(ValueError, match="a tied weight has a gradient in every row"):
        params, grads = (
            [array for layer in layers for array in getattr(layer, name)]
            for name in ("params", "grads")
        )
        UniqueParameters(params, grads).add_tied()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_model_has_one_gradient_of_its_own(copied):
    model = Rnnlm(V, D, H, 1, "float64", sparse=True)
    other, xs, ts = copied(model), ids(generator(), V, N, T), ids(generator(1), V, N, T)
    assert kinds(other) is RowGradient
    assert other.grads[0] is not model.grads[0]
    for each in (model, other):
        each.forward(xs, ts)
        each.backward()
    for ours, theirs in zip(model.grads, other.grads, strict=True):
        same(ours, theirs)


# ---- norm and clipping ----


@on_both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norm_and_clipping_are_those_of_the_array(dtype):
    gradient, array = pair(dtype=dtype)
    others = [floats(generator(1), H, dtype=dtype) for _ in range(2)]
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    lengths = [
        clip_grads(list(grads), 0.5) for grads in zip((gradient, array), others, strict=True)
    ]
    close(*lengths, tolerance)
    close(gradient.dense(), array, tolerance)
    close(norm([gradient, others[0]]), np.asarray(0.5), 1e-5)


@on_both
def test_elements_are_clipped_as_those_of_the_array():
    gradient, array = pair()
    for grad in (gradient, array):
        clip_grads_value([grad], 0.3)
    same(gradient.dense(), array)
    assert float(abs(array).max()) == 0.3


@on_both
def test_before_the_first_backward_pass_all_is_zero():
    gradient = RowGradient(np.ones((V, D)))
    assert float(norm([gradient])) == 0
    assert float(clip_grads([gradient, np.ones(1)], 0.5)) == 1
    same(gradient.dense(), np.zeros((V, D)))


def test_a_row_that_is_not_finite_is_noticed():
    gradient, _ = pair()
    assert all_finite([gradient])
    gradient.rows[1, 2] = numpy.nan
    assert not all_finite([gradient])
    assert numpy.isnan(norm([gradient]))


# ---- as an array ----


ARITHMETIC = {
    "2 g": lambda g: 2 * g,
    "g / 2": lambda g: g / 2,
    "-g": lambda g: -g,
    "g squared": lambda g: g**2,
    "g g": lambda g: g * g,
    "|g|": abs,
    "root of squares": lambda g: numpy.sqrt(g**2),
    "float32 g": lambda g: numpy.float32(2) * g,
    "g + 1": lambda g: g + 1,
    "1 - g": lambda g: 1 - g,
    "g by an array": lambda g: g / (2 + numpy.arange(V * D).reshape(V, D)),
    "an array and g": lambda g: numpy.ones((V, D)) - g,
    "g to the power of 0": lambda g: g**0,
    "2 to the power of g": lambda g: 2**g,
    "g and itself": lambda g: g + g,
    "comparison": lambda g: g > 0,
    "sum": numpy.sum,
    "sum of a column": lambda g: numpy.sum(g, axis=0),
    "a row": lambda g: g[4],
    "an element": lambda g: g[4, 1],
    "as an array": lambda g: numpy.array(g, dtype="float32"),
    "the norm of numpy": lambda g: numpy.sqrt(numpy.sum(g**2)),
}
ROWS_ALONE = ["2 g", "g / 2", "-g", "g squared", "g g", "|g|", "root of squares", "float32 g"]


@pytest.mark.parametrize("what", ARITHMETIC)
def test_arithmetic_gives_what_the_array_gives(what):
    gradient, array = pair()
    found, expected = ARITHMETIC[what](gradient), ARITHMETIC[what](array)
    close(dense(found), numpy.asarray(expected))
    assert (type(found) is RowGradient) is (what in ROWS_ALONE)
    same(gradient.dense(), array)


IN_PLACE = {
    "grad *= rate": lambda w, g: g.__imul__(0.5),
    "grad /= number": lambda w, g: g.__itruediv__(3.0),
    "table -= rate * grad": lambda w, g: w.__isub__(0.1 * g),
    "table += grad": lambda w, g: w.__iadd__(g),
    "grad[...] = 0": lambda w, g: g.__setitem__(Ellipsis, 0),
    "grad[...] = array": lambda w, g: g.__setitem__(Ellipsis, numpy.eye(V, D)),
    "grad[:] = -grad": lambda w, g: g.__setitem__(slice(None), -g),
}


@pytest.mark.parametrize("what", IN_PLACE)
def test_what_is_written_in_place_is_seen_by_whoever_holds_it(what):
    found = []
    for grad in pair():
        table = numpy.arange(float(V * D)).reshape(V, D)
        IN_PLACE[what](table, grad)
        found.append((table, to_cpu(grad)))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)


def test_a_part_of_it_cannot_be_written():
    gradient, _ = pair()
    with pytest.raises(TypeError, match=r"expected grad\[\.\.\.\] = value, got grad\[3\] = value"):
        gradient[3] = 1


def test_it_has_what_outside_code_asks_an_array_for():
    gradient, array = pair()
    for name in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(gradient, name) == getattr(array, name)
    assert len(gradient) == len(array)
    other = gradient.copy()
    other *= 2
    same(gradient.dense(), array)
    assert same_elements(gradient, gradient) and not same_elements(gradient, other)
    assert memory_address(gradient) != memory_address(other)
    assert repr(gradient) == f"RowGradient(3 rows of ({V}, {D}), float64)"


def train_by_the_books_loop(model, xs, ts, lr=0.5, max_norm=0.1):
    """Clipping and update as code that is written against the book has them."""
    model.forward(xs, ts)
    model.backward()
    params, grads = model.params, model.grads
    total_norm = 0
    for grad in grads:
        total_norm += numpy.sum(grad**2)
    total_norm = numpy.sqrt(total_norm)
    rate = max_norm / (total_norm + 1e-6)
    if rate < 1:
        for grad in grads:
            grad *= rate
    for i in range(len(params)):
        params[i] -= lr * grads[i]


def test_a_loop_of_ones_own_changes_the_weights_as_by_an_array():
    models = [Rnnlm(V, D, H, 1, "float64", sparse=sparse) for sparse in (True, False)]
    for seed in range(3):
        xs, ts = ids(generator(seed), V, N, T), ids(generator(seed + 9), V, N, T)
        for model in models:
            train_by_the_books_loop(model, xs, ts)
    for ours, theirs in zip(*(model.params for model in models), strict=True):
        close(ours, theirs)
