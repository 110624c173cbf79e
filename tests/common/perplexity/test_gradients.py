"""Gradients of an evaluation by every vector that was read, against differences."""

import numpy as np
import pytest

from common.functions import log_softmax
from common.perplexity.gradients import Gradients
from common.time_layers import cell_names
from models import Rnnlm
from models.char_rnn import CharRnn
from tests.builders import MODELS, D, H, N, V, close, generator, ids, same, tiny_model

STEPS = 3


def loss_of_last(model, vectors, ts):
    """-log p of the targets (N,) after vectors (N, T, D) in place of ids."""
    scores = model.run(model.layers[1:], vectors, train_flg=False)[:, -1]
    return -log_softmax(scores)[np.arange(len(ts)), ts]


def by_differences(model, xs, ts, step=1e-5):
    """d loss[n] / d x[n, t] from the state in which the model is."""
    state = model.get_state()
    vectors = np.array(model.layers[0].forward(xs))
    numeric = np.empty_like(vectors)
    for _, t, d in np.ndindex(vectors.shape):
        sides = []
        for sign in (1, -1):
            moved = vectors.copy()
            moved[:, t, d] += sign * step
            model.set_state(state)
            sides.append(loss_of_last(model, moved, ts))
        numeric[:, t, d] = (sides[0] - sides[1]) / (2 * step)
    model.set_state(state)
    return numeric


def checked(model):
    """Compare the gradients of a model, some words after its zero state, with differences."""
    xs, ts = ids(generator(2), V, N, 2 + STEPS), ids(generator(3), V, N)
    gradients = Gradients(model, "test")
    with gradients.prepared():
        model.run(model.layers[:-1], xs[:, :2], train_flg=False)
        numeric = by_differences(model, xs[:, 2:], ts)
        own = gradients.of_last_loss(xs[:, 2:], ts)
    assert own.shape == numeric.shape
    assert np.abs(own).min() > 0
    np.testing.assert_allclose(own, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_differences_whatever_the_model_drops_in_training(name):
    checked(tiny_model(name, "float64", dropout_ratio=0.4, scale=0.5))


@pytest.mark.parametrize("cell", cell_names())
def test_they_are_those_of_differences_for_every_cell(cell):
    model = Rnnlm(V, D, H, rng=1, dtype="float64", cell=cell, num_layers=2)
    for param in model.params:
        param[...] += 0.3 * generator(5).standard_normal(param.shape)
    checked(model)


def test_a_one_hot_row_is_a_vector_too():
    model = CharRnn(V, H, rng=1, dtype="float64")
    for param in model.params:
        param[...] = 0.5 * generator(5).standard_normal(param.shape)
    checked(model)


def test_a_text_has_its_gradient_whatever_else_is_in_the_batch():
    model = tiny_model("BetterRnnlm", "float64", scale=0.5)
    xs, ts = ids(generator(2), V, N, STEPS), ids(generator(3), V, N)
    gradients = Gradients(model, "test")
    with gradients.prepared():
        together = gradients.of_last_loss(xs, ts)
        for n in range(N):
            model.reset_state()
            close(gradients.of_last_loss(xs[n : n + 1], ts[n : n + 1])[0], together[n])


def test_twice_gives_the_same_and_weights_and_state_stay():
    model = tiny_model("AwdRnnlm", "float64", dropout_ratio=0.4, scale=0.5)
    xs, ts = ids(generator(2), V, N, STEPS), ids(generator(3), V, N)
    model.forward(xs, xs)
    weights, state = [param.copy() for param in model.params], model.get_state()
    gradients = Gradients(model, "test")
    for _ in range(2):
        with gradients.prepared():
            found = [gradients.of_last_loss(xs, ts)]
            model.reset_state()
            found.append(gradients.of_last_loss(xs, ts))
        same(*found)
    for param, weight in zip(model.params, weights, strict=True):
        same(param, weight)
    for kept, before in zip(model.get_state(), state, strict=True):
        for a, b in zip(kept, before, strict=True):
            same(a, b)
