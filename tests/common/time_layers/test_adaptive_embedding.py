"""Vectors of words, those of rarer ones from a narrower table."""

import numpy
import pytest

from common.np import np, to_cpu
from common.time_layers import TimeAdaptiveEmbedding, TimeEmbedding
from common.time_layers.clusters import WordClusters
from tests.builders import close, floats, generator, same

N, T, D, V = 3, 5, 8, 30
pytestmark = pytest.mark.usefixtures("backend")


def embedding(cutoffs=(6, 15), dropout_ratio=0.0, seed=0):
    """Words in a drawn order."""
    rng = generator(seed)
    clusters = WordClusters(V, cutoffs)
    clusters.set_counts(rng.permutation(V))
    return TimeAdaptiveEmbedding.build(D, clusters, 1.0, rng, "float64", dropout_ratio)


def table_of(layer):
    """The vector of every word (V, D): row by row, from the definition."""
    params = list(map(to_cpu, layer.params))
    tables = [params[0][: layer.clusters.sizes[0]]]
    tables += [W @ Q for W, Q in zip(params[1::2], params[2::2], strict=True)]
    return np.asarray(numpy.concatenate(tables)[layer.clusters.ranks])


@pytest.mark.parametrize("cutoffs", [(6, 15), (1,), (1, 2, 3)])
def test_it_is_an_embedding_of_the_projected_tables(cutoffs):
    layer = embedding(cutoffs)
    xs = generator(1).integers(0, V, (N, T))
    close(layer.forward(xs), table_of(layer)[np.asarray(xs)])
    same(layer.forward(np.asarray(xs)), layer.forward(xs))
    close(layer.forward(xs[:1, :1]), layer.forward(xs)[:1, :1])


def test_its_gradients_are_those_of_the_tables():
    layer = embedding()
    plain = TimeEmbedding(table_of(layer))
    xs, dys = generator(1).integers(0, V, (N, 4 * T)), floats(generator(2), N, 4 * T, D)
    for each in (plain, layer):
        each.forward(xs)
        assert each.backward(dys) is None
    by_rank = numpy.empty((V, D))
    by_rank[layer.clusters.ranks] = to_cpu(plain.grads[0])
    dW0, dW1, dQ1, dW2, dQ2 = map(to_cpu, layer.grads)
    _, W1, Q1, W2, Q2 = map(to_cpu, layer.params)
    close(dW0[:6], by_rank[:6])
    assert not dW0[6:].any()  # the clusters' rows, which no word has
    for rows, W, Q, dW, dQ in ((slice(6, 15), W1, Q1, dW1, dQ1), (slice(15, V), W2, Q2, dW2, dQ2)):
        close(dW, by_rank[rows] @ Q.T)
        close(dQ, W.T @ by_rank[rows])


def test_where_it_accumulates_it_adds_and_else_it_overwrites():
    layer, xs = embedding(), generator(1).integers(0, V, (N, T))
    dys = floats(generator(2), N, T, D)
    layer.forward(xs)
    layer.backward(dys)
    own = list(map(np.array, layer.grads))
    layer.backward(dys)
    for got, want in zip(layer.grads, own, strict=True):
        same(got, want)
    layer.accumulate = True
    layer.backward(dys)
    for got, want in zip(layer.grads, own, strict=True):
        close(got, 2 * want)


def test_a_window_without_a_word_of_a_cluster_leaves_its_gradient_zero():
    layer = embedding()
    rare = numpy.flatnonzero(layer.clusters.ranks >= 15)
    layer.forward(rare[: N * T].reshape(N, T))
    for grad in layer.grads:
        grad[...] = 99
    layer.backward(floats(generator(2), N, T, D))
    seen = [bool(to_cpu(grad).any()) for grad in layer.grads]
    assert seen == [False, False, False, True, True]


def test_it_drops_the_words_that_an_embedding_of_the_same_seed_drops():
    layer, xs = embedding(dropout_ratio=0.4), generator(1).integers(0, V, (N, 4 * T))
    plain = TimeEmbedding(table_of(layer), 0.4, generator(7))
    layer.masks.seed, layer.masks.layer = plain.masks.seed, plain.masks.layer
    dys = floats(generator(2), N, 4 * T, D)
    for _ in range(2):
        close(layer.forward(xs), plain.forward(xs))
        layer.backward(dys)
        plain.backward(dys)
        by_rank = numpy.empty((V, D))
        by_rank[layer.clusters.ranks] = to_cpu(plain.grads[0])
        close(to_cpu(layer.grads[0])[:6], by_rank[:6])
    layer.train_flg = False
    close(layer.forward(xs), table_of(layer)[np.asarray(xs)])
    with pytest.raises(RuntimeError, match=r"^TimeAdaptiveEmbedding\.backward"):
        layer.backward(dys)


def test_vectors_of_rare_words_begin_as_large_as_those_of_frequent_ones():
    clusters = WordClusters(3000, (500, 1000))
    layer = TimeAdaptiveEmbedding.build(256, clusters, 0.01, generator(), "float32")
    for words in (range(500), range(500, 1000), range(1000, 3000)):
        assert float(layer.forward(numpy.array([words])).std()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("bad", [V, -1])
def test_an_id_out_of_range_is_refused_also_on_a_device(bad):
    xs = numpy.full((N, T), 1)
    xs[1, 1] = bad
    for where in (xs, np.asarray(xs)):
        with pytest.raises(ValueError, match=f"^TimeAdaptiveEmbedding: expected xs in .*got {bad}"):
            embedding().forward(where)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "expected the parameters W0, W1, Q1, W2, Q2, got 4"),
        (lambda p: [p[0][:5], *p[1:]], r"expected W0 of shape \(6, D\), got \(5, 8\)"),
        (lambda p: [p[0], p[1][1:], *p[2:]], r"expected W1 of shape \(9, d\), got \(8, 2\)"),
        (lambda p: [*p[:2], p[2][:, 1:], *p[3:]], r"expected Q1 of shape \(2, 8\), got \(2, 7\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(change, message):
    layer = embedding()
    with pytest.raises(ValueError, match=f"^TimeAdaptiveEmbedding: {message}"):
        TimeAdaptiveEmbedding(layer.clusters, *change(layer.params))
