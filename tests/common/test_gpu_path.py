"""What can be known of the GPU path without a device, with a strict double of CuPy."""

import numpy
import pytest

from common import config
from common.kernels.passes import add_rows
from common.np import np
from common.perplexity.protocols import inputs_and_targets, streams
from common.time_layers import TimeAffine, TimeEmbedding, TimeOutputWithLoss
from tests.builders import H, N, T, V, close, floats, generator


def add_on_device(table, ids, rows):
    """``table`` after ``add_rows`` on the device; all are NumPy arrays here."""
    there = np.asarray(table)
    add_rows(there, np.asarray(ids), np.asarray(rows))
    return there.get()


def added(table, ids, rows):
    """The same in float64."""
    table = table.astype("float64")
    numpy.add.at(table, ids, rows)
    return table


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("num_rows", [1, 2, 3, 31, 700])
def test_rows_are_added_as_often_as_their_ids_occur(num_rows):
    rng = generator()
    table = rng.standard_normal((7, 5), dtype="float32")
    ids = rng.integers(0, 6, num_rows)  # the last row of the table is not asked for
    rows = rng.standard_normal((num_rows, 5), dtype="float32")
    numpy.testing.assert_allclose(
        add_on_device(table, ids, rows), added(table, ids, rows), rtol=1e-6, atol=1e-5
    )


@pytest.mark.usefixtures("waits")
def test_rows_are_added_to_a_transposed_table_in_place():
    rng = generator()
    table, ids = rng.standard_normal((5, 7)), rng.integers(0, 7, 30)
    rows = rng.standard_normal((30, 5))
    there = np.asarray(table)
    add_rows(there.T, np.asarray(ids), np.asarray(rows))
    close(there, added(table.T, ids, rows).T)


@pytest.mark.usefixtures("waits")
def test_a_large_row_costs_the_rows_of_other_ids_no_digits():
    table = numpy.zeros((3, 1), dtype="float32")
    ids = numpy.array([0, 1, 2, 1, 2])
    rows = numpy.array([[1e8], [0.1], [0.2], [0.3], [0.4]], dtype="float32")
    found = add_on_device(table, ids, rows)
    numpy.testing.assert_allclose(found[:, 0], [1e8, 0.4, 0.6], rtol=1e-6)
    # CuPy's own sums of segments do not have them:
    ordered, starts = rows[numpy.argsort(ids, kind="stable")], numpy.array([0, 1, 3])
    sums = np.add.reduceat(np.asarray(ordered), np.asarray(starts), axis=0).get()
    assert sums[0, 0] == 1e8
    assert not numpy.allclose(sums[1:, 0], [0.4, 0.6], rtol=0.5)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("value", [numpy.inf, numpy.nan])
def test_a_row_that_is_not_finite_spoils_its_own_id_alone(value):
    table = numpy.zeros((3, 1), dtype="float32")
    rows = numpy.array([[value], [1], [2], [4], [8]], dtype="float32")
    found = add_on_device(table, numpy.array([1, 0, 1, 2, 2]), rows)
    numpy.testing.assert_array_equal(found[:, 0], [1, value, 12])


def test_adding_rows_waits_for_nothing(waits):
    ids = np.asarray(generator().integers(0, V, 20))
    add_rows(np.zeros((V, H)), ids, np.ones((20, H)))
    assert waits == []


def embedding_and_output(dtype="float64"):
    rng = generator()
    embedding = TimeEmbedding(floats(rng, V, H, dtype=dtype))
    output = TimeAffine(floats(rng, H, V, dtype=dtype), floats(rng, V, dtype=dtype))
    return embedding, TimeOutputWithLoss(output)


def test_the_backward_passes_of_embedding_and_output_wait_for_nothing(waits, monkeypatch):
    rng = generator(1)
    xs, ts = rng.integers(0, V, (N, T)), rng.integers(0, V, (N, T))
    ts[0, 0] = -1  # ignored

    def gradients():
        embedding, loss = embedding_and_output()
        hs = embedding.forward(np.asarray(xs))
        loss.forward(hs, np.asarray(ts))
        embedding.backward(loss.backward())
        return [*embedding.grads, *loss.output.grads]

    there = gradients()
    assert waits == []
    monkeypatch.setattr(config, "GPU", False)
    for on_device, on_cpu in zip(there, gradients(), strict=True):
        close(on_device, on_cpu)


def test_ids_from_the_host_are_looked_at_there_before_they_go_over(waits):
    rng = generator(1)
    xs, ts = rng.integers(0, V, (N, T)), rng.integers(0, V, (N, T))
    embedding, loss = embedding_and_output()
    hs = embedding.forward(xs)
    loss.forward(hs, ts)
    assert waits == []
    for wrong in (-1, V):
        xs[0, 0] = wrong
        with pytest.raises(ValueError, match=rf"TimeEmbedding: expected xs in .*, got {wrong}$"):
            embedding.forward(xs)
    ts[0, 0] = V
    with pytest.raises(ValueError, match=rf"TimeOutputWithLoss: expected ts in .*, got {V}$"):
        loss.forward(hs, ts)


@pytest.mark.usefixtures("waits")
def test_a_corpus_stays_on_the_host_until_a_layer_has_looked_at_its_ids():
    corpus = numpy.arange(20)
    for tokens in (streams(corpus, 3), *inputs_and_targets(corpus, 7, "test")):
        assert isinstance(tokens, numpy.ndarray)
    xs, ts = inputs_and_targets(corpus, 7, "test")
    assert xs[0].tolist() == [7, *corpus[:-1]]
    assert ts[0].tolist() == corpus.tolist()


def test_a_window_without_a_target_costs_nothing_and_is_not_waited_for(waits):
    _, loss = embedding_and_output()
    hs = np.asarray(floats(generator(), N, T, H))
    found = loss.forward(hs, np.full((N, T), -1))
    dhs = loss.backward()
    assert waits == []
    assert float(found) == 0
    for gradient in (dhs, *loss.output.grads):
        assert not gradient.get().any()
