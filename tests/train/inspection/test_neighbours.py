"""Words that an embedding puts next to each other."""

import numpy as np

from models import Rnnlm
from models.char_rnn import CharRnn
from train.inspection.neighbours import embedding_of, nearest

W = np.array([[1, 0], [2, 0.1], [0, 3], [-1, 0], [0, 0]], "float32")


def test_the_nearest_come_first_whatever_their_length_and_no_word_is_its_own():
    near, cosine = nearest(W, np.array([0, 2]), 3)
    assert near.tolist() == [[1, 2, 4], [1, 0, 3]]
    expected = [[2 / np.hypot(2, 0.1), 0, 0], [0.1 / np.hypot(2, 0.1), 0, 0]]
    np.testing.assert_allclose(cosine, expected, rtol=1e-6)


def test_more_than_there_are_is_all_there_are_and_many_rows_are_as_one():
    near, _ = nearest(W, np.array([0]), 10)
    assert near.shape == (1, 4)
    table = np.random.default_rng(0).standard_normal((600, 5)).astype("float32")
    near, cosine = nearest(table, np.arange(600), 4)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    for row in (0, 300, 599):
        alone, _ = nearest(table, np.array([row]), 4)
        assert near[row].tolist() == alone[0].tolist()
        np.testing.assert_allclose(cosine[row], unit[near[row]] @ unit[row], rtol=1e-4)


def test_a_model_without_a_table_has_none():
    model = Rnnlm(7, 4, 5, rng=1)
    assert embedding_of(model) is model.layers[0].params[0]
    assert embedding_of(CharRnn(7, 5, rng=1)) is None
