"""What every token costs, and that all of them together are the exact perplexity."""

import math

import numpy
import pytest

from common.np import np, to_cpu
from common.perplexity.per_token import token_losses
from common.perplexity.protocols import eval_perplexity_exact
from tests.builders import MODELS, V, close, generator, ids, same, tiny_model


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_add_up_to_the_exact_perplexity(name):
    model = tiny_model(name, dtype="float64", scale=0.7)
    text = ids(generator(5), V, 101)
    losses = token_losses(model, text, 3)
    assert losses.shape == (101,) and losses.dtype == "float64"
    exact = eval_perplexity_exact(model, text, 3)
    assert math.exp(losses.mean()) == pytest.approx(exact, rel=1e-12)
    assert losses.std() > 0.1  # not one mean for all


def test_a_model_in_single_precision_adds_up_to_five_digits():
    model, text = tiny_model("Rnnlm", scale=0.7), ids(generator(5), V, 900)
    exact = eval_perplexity_exact(model, text, 3)
    assert math.exp(token_losses(model, text, 3).mean()) == pytest.approx(exact, rel=1e-5)


def test_a_model_that_knows_frequencies_only_pays_their_logarithm():
    model = tiny_model("SimpleRnnlm", dtype="float64", scale=0.0)
    q = numpy.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])
    model.params[-1][...] = np.asarray(numpy.log(q)) + 5.0  # the softmax takes the 5 away
    close(token_losses(model, np.array([0, 6, 3]), 2), -numpy.log(q[[0, 6, 3]]))


@pytest.mark.usefixtures("backend")
def test_windows_change_nothing_and_the_training_state_is_kept():
    model, text = tiny_model("BetterRnnlm", dtype="float64", scale=0.7), ids(generator(5), V, 50)
    model.forward(ids(generator(6), V, 2, 3), ids(generator(7), V, 2, 3))
    before = model.get_state()
    close(token_losses(model, text, 3, time_size=7), token_losses(model, text, 3))
    for kept, was in zip(model.get_state(), before, strict=True):
        same(to_cpu(kept[0]), to_cpu(was[0]))


def test_a_token_that_is_ignored_or_no_id_is_refused():
    model = tiny_model("Rnnlm")
    with pytest.raises(ValueError, match=f"expected targets in .*, got {V}$"):
        token_losses(model, np.array([1, 2, V]), 0)
    model.loss_layer.ignore_label = 2
    with pytest.raises(ValueError, match="token_losses: expected tokens that all count, got 2"):
        token_losses(model, np.array([1, 2, 3, 2]), 0)


def test_what_is_no_language_model_and_an_empty_text_are_refused():
    with pytest.raises(TypeError, match=r"^token_losses: expected a model with layers"):
        token_losses([], np.array([1]), 0)
    with pytest.raises(ValueError, match=r"^token_losses: a corpus of 0 tokens"):
        token_losses(tiny_model("Rnnlm"), np.array([], dtype=int), 0)
