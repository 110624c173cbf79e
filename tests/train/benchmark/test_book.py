"""The book's code computes what Time Layers computes, only slower."""

import numpy as np
import pytest

from tests.train.benchmark.small_models import BOTH, model_of, some_ids, two_windows
from train.benchmark import book, time_layers


@BOTH
def test_two_windows_give_the_same_losses_and_gradients_as_time_layers(sizes):
    model = model_of(sizes, "float64")
    book_model = book.Model(sizes, model.params)
    for xs, ts in zip(*two_windows(sizes), strict=True):
        assert book_model.forward(xs, ts) == pytest.approx(model.forward(xs, ts), rel=1e-13)
        book_model.backward()
        model.backward()
        params, grads = book.merge_tied(book_model.params, book_model.grads)
        assert len(params) == len(model.params)
        for param, grad, own_param, own in zip(
            params, grads, model.params, model.grads, strict=True
        ):
            assert param is own_param
            np.testing.assert_allclose(grad, own, rtol=1e-10, atol=1e-13)


@BOTH
def test_its_steps_change_the_weights_as_time_layers_does(sizes):
    own_side = time_layers.Side(sizes, some_ids(), 1)
    own_side.model = own_side.trainer.model = model_of(sizes, "float64")
    book_side = book.Side(sizes, some_ids(), 1)
    book_side.model = book.Model(sizes, [param.copy() for param in own_side.model.params])
    own_side.step(3)
    book_side.step(3)
    params, _ = book.merge_tied(book_side.model.params, book_side.model.grads)
    for param, own in zip(params, own_side.model.params, strict=True):
        np.testing.assert_allclose(param, own, rtol=1e-9, atol=1e-12)


def test_dropout_zeroes_and_scales():
    xs = np.ones((4, 5, 6), dtype="float32")
    ys = book.Dropout(0.25).forward(xs)
    assert set(np.unique(ys)) == {0, np.float32(4 / 3)}
    assert ys.dtype == np.float32
