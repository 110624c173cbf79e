"""Tied parameters recognised by their memory."""

import numpy as np
import pytest

from common.optimizer import UniqueParameters, remove_duplicate
from tests.builders import D, H, floats, generator, same

rng = generator()
W, OTHER = floats(rng, D, H), floats(rng, D, H)
SQUARE = floats(rng, H, H)


def grads_like(*params):
    return [floats(rng, *param.shape) for param in params]


def test_one_array_listed_twice_becomes_one_parameter_with_the_sum_of_both_gradients():
    g1, g2, g3 = grads_like(W, OTHER, W)
    expected = g1 + g3
    unique = UniqueParameters([W, OTHER, W], [g1, g2, g3])
    unique.add_tied()
    assert unique.params[0] is W
    assert unique.params[1] is OTHER
    assert len(unique.params) == len(unique.grads) == 2
    assert unique.grads[0] is g1
    same(g1, expected)


def test_a_transposed_view_adds_its_gradient_transposed():
    g1, g2 = grads_like(W, W.T)
    expected = g1 + g2.T
    unique = UniqueParameters([W, W.T], [g1, g2])
    unique.add_tied()
    assert len(unique.params) == 1
    same(unique.grads[0], expected)


def test_a_square_matrix_is_told_from_its_transposed_view():
    g1, g2, g3 = grads_like(SQUARE, SQUARE.T, SQUARE)
    expected = g1 + g2.T + g3
    unique = UniqueParameters([SQUARE, SQUARE.T, SQUARE[...]], [g1, g2, g3])
    unique.add_tied()
    assert len(unique.params) == 1
    same(g1, expected)


def test_a_gradient_that_is_shared_already_is_not_added_to_itself():
    (g,) = grads_like(W)
    expected = g.copy()
    unique = UniqueParameters([W, W.T, W], [g, g.T, g])
    unique.add_tied()
    assert len(unique.params) == 1
    same(g, expected)


def test_a_loop_of_one_s_own_gets_each_parameter_once_with_the_sum_of_its_gradients():
    g1, g2, g3 = grads_like(W, OTHER, W)
    expected = g1 + g3
    params, grads = remove_duplicate([W, OTHER, W], [g1, g2, g3])
    assert params[0] is W and params[1] is OTHER
    assert grads[0] is g1 and grads[1] is g2
    same(g1, expected)


def test_two_weights_that_happen_to_be_equal_stay_two():
    params, _ = remove_duplicate([SQUARE, SQUARE.copy()], grads_like(SQUARE, SQUARE))
    assert len(params) == 2


def test_gradients_are_added_anew_after_every_backward_pass():
    g1, g2 = grads_like(W, W)
    unique = UniqueParameters([W, W], [g1, g2])
    for step in (1.0, 2.0):
        g1[...], g2[...] = step, 10 * step  # what a backward pass writes
        unique.add_tied()
        same(g1, np.full((D, H), 11 * step))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (W, W.copy()),  # equal values alone tie nothing
        (np.zeros(H), np.zeros(H)),
        (SQUARE, SQUARE[:-1]),  # one address, another shape
        (SQUARE[0], SQUARE[:, 0]),
    ],
    ids=["equal values", "equal zeros", "a part", "a row and a column"],
)
def test_other_arrays_are_not_tied(a, b):
    grads = grads_like(a, b)
    kept = [g.copy() for g in grads]
    unique = UniqueParameters([a, b], grads)
    unique.add_tied()
    assert len(unique.params) == 2
    for now, then in zip(grads, kept, strict=True):
        same(now, then)
