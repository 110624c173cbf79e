"""Stateless maths: known values, and no overflow at any finite input."""

import math

import pytest

from common.functions import (
    cross_entropy_error,
    log_softmax,
    one_hot,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from common.np import np
from tests.builders import close, floats, generator, same

pytestmark = pytest.mark.usefixtures("backend")


def test_activations_have_their_known_values():
    close(sigmoid(np.array([0.0, math.log(3), -math.log(3)])), np.array([0.5, 0.75, 0.25]))
    close(tanh(np.array([0.0, math.log(3)])), np.array([0.0, 0.8]))
    same(relu(np.array([-2.0, 0.0, 3.0])), np.array([0.0, 0.0, 3.0]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_are_exact_where_a_plain_exp_would_overflow(dtype):
    x = np.array([-1e4, 1e4], dtype=dtype)
    for function in (sigmoid, lambda x: 0.5 * (tanh(x) + 1)):
        same(function(x), np.array([0, 1], dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_and_its_logarithm_are_stable_at_scores_of_ten_thousand(dtype):
    x = np.array([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], [0, 1e4, 0]], dtype=dtype)
    close(softmax(x), np.array([[1 / 2, 1 / 2, 0], [1 / 3] * 3, [0, 1, 0]]), 1e-7)
    ln2, ln3 = math.log(2), math.log(3)
    expected = np.array([[-ln2, -ln2, -2e4 - ln2], [-ln3] * 3, [-1e4, 0, -1e4]])
    close(log_softmax(x), expected, 1e-6)
    assert softmax(x).dtype == log_softmax(x).dtype == dtype


def test_softmax_of_logarithms_is_the_distribution_along_the_last_axis():
    p = np.array([[[0.1, 0.2, 0.7]], [[0.5, 0.25, 0.25]]])
    close(softmax(np.log(p) + 3), p)
    close(log_softmax(np.log(p) - 3), np.log(p))


def test_softmax_of_one_row_is_that_of_the_row_in_a_matrix():
    x = floats(generator(), 2, 5)
    same(softmax(x[1]), softmax(x)[1])


def test_softmax_takes_integers():
    e = math.e
    expected = np.array([1 / (1 + e), e / (1 + e)])
    close(softmax(np.array([0, 1])), expected)
    close(log_softmax(np.array([0, 1])), np.log(expected))


def test_softmax_leaves_its_input_alone():
    x = floats(generator(), 2, 5)
    kept = x.copy()
    softmax(x), log_softmax(x)
    same(x, kept)


Y = [[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]
LOSS = -(math.log(0.7) + math.log(0.5)) / 2


@pytest.mark.parametrize("t", [[2, 0], [[0, 0, 1], [1, 0, 0]]], ids=["ids", "one-hot"])
def test_cross_entropy_is_the_mean_of_minus_log_of_the_targets_probability(t):
    assert float(cross_entropy_error(np.array(Y), np.array(t))) == pytest.approx(LOSS, rel=1e-12)


@pytest.mark.parametrize("t", [2, [2], [0, 0, 1]])
def test_cross_entropy_takes_a_single_row(t):
    loss = cross_entropy_error(np.array(Y[0]), np.array(t))
    assert float(loss) == pytest.approx(-math.log(0.7), rel=1e-12)


def test_cross_entropy_of_an_impossible_target_is_large_and_finite():
    loss = float(cross_entropy_error(np.array([[1.0, 0.0]]), np.array([1])))
    assert 100 < loss < math.inf


def test_cross_entropy_needs_one_target_for_each_row():
    with pytest.raises(ValueError, match="expected 2 targets, got 3"):
        cross_entropy_error(np.array(Y), np.array([0, 1, 2]))


@pytest.mark.parametrize("t", [np.zeros(0, int), np.zeros((0, 3))], ids=["ids", "one-hot"])
def test_cross_entropy_of_no_rows_is_refused(t):
    with pytest.raises(ValueError, match="cross_entropy_error: expected 1 or more targets, got 0"):
        cross_entropy_error(np.zeros((0, 3)), t)


def test_one_hot_is_rows_of_the_identity_for_ids_of_any_shape():
    expected = np.array([[[0, 1, 0], [1, 0, 0]]], dtype="float32")
    same(one_hot(np.array([[1, 0]]), 3), expected)
    same(one_hot([1, 0], 3, "float64"), expected[0].astype("float64"))


@pytest.mark.parametrize("bad", [-1, 3, 100])
def test_one_hot_refuses_an_id_out_of_range(bad):
    with pytest.raises(ValueError, match=rf"one_hot: expected ids in 0\.\.2, got .*{bad}"):
        one_hot([1, bad], 3)  # on the host; what is on a device is not looked at
