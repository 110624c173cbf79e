"""From ids to vectors: rows of the table, its gradient, and words that are dropped."""

import pytest

from common.np import np
from common.time_layers import TimeEmbedding
from tests.builders import D, N, T, V, close, floats, generator, ids, same

pytestmark = pytest.mark.usefixtures("backend")


# ---- the table ----


def test_an_embedding_adds_up_the_gradients_of_a_repeated_id():
    layer = TimeEmbedding(np.arange(6.0).reshape(3, 2))
    xs = np.array([[2, 0, 2], [2, 2, 0]])
    same(layer.forward(xs)[1], np.array([[4.0, 5.0], [4.0, 5.0], [0.0, 1.0]]))
    dys = np.array([[[1.0, 0], [2, 0], [4, 0]], [[8, 0], [16, 0], [32, 1]]])
    assert layer.backward(dys) is None
    same(layer.grads[0], np.array([[34.0, 1.0], [0.0, 0.0], [29.0, 0.0]]))


def test_an_embedding_is_a_product_with_one_hot_rows():
    rng = generator()
    W, xs, dys = floats(rng, V, D), ids(rng, V, 5, 30), floats(rng, 5, 30, D)
    layer = TimeEmbedding(W)
    close(layer.forward(xs), np.eye(V)[xs] @ W)
    layer.backward(dys)
    close(layer.grads[0], np.eye(V)[xs].reshape(150, V).T @ dys.reshape(150, D))


def test_an_embedding_that_accumulates_adds_to_what_the_output_layer_wrote():
    rng = generator()
    layer, xs, dys = TimeEmbedding(floats(rng, V, D)), ids(rng, V, N, T), floats(rng, N, T, D)
    layer.forward(xs)
    layer.backward(dys)
    own = layer.grads[0].copy()
    before = floats(rng, V, D)
    layer.grads[0][...] = before
    layer.accumulate = True
    layer.backward(dys)
    close(layer.grads[0], before + own)


def test_an_embedding_takes_a_list_of_lists():
    layer = TimeEmbedding(floats(generator(), V, D))
    same(layer.forward([[1, 2, 3]]), layer.forward(np.array([[1, 2, 3]])))


# ---- dropped words ----


def test_a_dropped_word_is_zero_wherever_it_occurs_and_the_others_are_scaled_up():
    W, xs = 1 + abs(floats(generator(), 40, D)), ids(generator(), 40, 5, 30)
    layer = TimeEmbedding(W, 0.25, generator(3))
    ys = layer.forward(xs)
    ratios = ys / W[xs]
    of_word = [np.unique(ratios[xs == word].round(9)) for word in np.unique(xs).tolist()]
    assert {ratio.shape for ratio in of_word} == {(1,)}
    assert {round(float(ratio[0]), 6) for ratio in of_word} == {0.0, round(1 / 0.75, 6)}
    assert not bool((layer.forward(xs) == ys).all())  # other words in the next window


def test_embedding_dropout_keeps_the_expected_share_of_the_vocabulary():
    layer = TimeEmbedding(np.ones((10_000, 1)), 0.3, generator())
    ys = layer.forward(np.arange(10_000).reshape(10, 1_000))
    assert float((ys == 0).mean()) == pytest.approx(0.3, abs=0.01)
    assert float(ys.mean()) == pytest.approx(1, abs=0.02)


def test_in_evaluation_and_with_a_ratio_of_zero_an_embedding_draws_nothing():
    W, xs, rng = floats(generator(), V, D), ids(generator(), V, N, T), generator(3)
    plain, dropping = TimeEmbedding(W, rng=rng), TimeEmbedding(W, 0.5, rng)
    dropping.train_flg = False
    same(plain.forward(xs), W[xs])
    same(dropping.forward(xs), W[xs])
    assert plain.masks is None
    assert (dropping.masks.layer, dropping.masks.passes) == (0, 0)
    with pytest.raises(RuntimeError, match=r"^TimeEmbedding\.backward"):
        dropping.backward(W[xs])


def test_dropped_words_leave_what_a_tied_output_layer_wrote_alone():
    rng = generator()
    xs = np.arange(12).reshape(2, 6)
    layer = TimeEmbedding(floats(rng, 12, D), 0.5, generator(3))
    mask = layer.forward(xs).reshape(12, D) / layer.params[0]
    before, dys = floats(rng, 12, D), floats(rng, 2, 6, D)
    layer.accumulate = True
    layer.grads[0][...] = before
    layer.backward(dys)
    dropped = mask[:, 0] == 0
    assert 0 < int(dropped.sum()) < 12
    same(layer.grads[0][dropped], before[dropped])
    close(layer.grads[0], before + mask * dys.reshape(12, D))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_that_leaves_nothing_is_refused_by_name(ratio):
    with pytest.raises(ValueError, match=r"^TimeEmbedding: expected a dropout ratio in \[0, 1\)"):
        TimeEmbedding(np.ones((V, D)), ratio)
