"""The cache against its formula, word by word, and what it promises of a text."""

import math

import numpy
import pytest

from common.functions import softmax
from common.np import np, to_cpu
from common.perplexity.neural_cache import (
    cache_probabilities,
    eval_perplexity_cache,
    mixed_perplexity,
)
from common.util import eval_perplexity_exact
from models import Rnnlm
from tests.builders import MODELS, N, T, V, close, generator, ids, same, tiny_model

on_both = pytest.mark.usefixtures("backend")
every_model = pytest.mark.parametrize("name", MODELS)
FIRST = 2  # stands for <eos>


def model_of(name, dtype="float64"):
    """A model that drops what it can while training, with weights far from zero."""
    return tiny_model(name, dtype, dropout_ratio=0.4, scale=0.7)


def slowly(model, corpus, cache_size, theta, weight):
    """Perplexity with the cache as a plain list, one word at a time."""
    model.reset_state()
    cache, total, word = [], 0.0, FIRST
    for target in to_cpu(corpus).tolist():
        h = model.run(model.layers[:-1], np.array([[word]]), train_flg=False)
        p = to_cpu(softmax(model.layers[-1].forward(h)[0, 0]))
        h = to_cpu(h)[0, 0].copy()
        if cache:
            weights = [math.exp(theta * float(h @ key)) for key, _ in cache]
            found = sum(w for w, (_, value) in zip(weights, cache, strict=True) if value == target)
            total -= math.log((1 - weight) * p[target] + weight * found / sum(weights))
        else:
            total -= math.log(p[target])
        cache = [*cache, (h, target)][-cache_size:]
        word = target
    model.reset_state()
    return math.exp(total / len(corpus))


@on_both
@every_model
@pytest.mark.parametrize("cache_size", [1, 5, 100])
@pytest.mark.parametrize("time_size", [1, 7, 200])
def test_it_is_the_papers_formula(name, cache_size, time_size):
    model, corpus = model_of(name), ids(generator(), V, 30)
    for theta, weight in ((0.0, 0.5), (0.7, 0.2)):
        settings = {"cache_size": cache_size, "theta": theta, "weight": weight}
        got = eval_perplexity_cache(model, corpus, FIRST, time_size=time_size, **settings)
        assert got == pytest.approx(slowly(model, corpus, **settings), rel=1e-10)


@on_both
@every_model
def test_with_a_weight_of_zero_it_is_the_exact_protocol(name):
    model, corpus = model_of(name), ids(generator(), V, 30)
    got = eval_perplexity_cache(model, corpus, FIRST, cache_size=10, theta=0.5, weight=0)
    assert got == pytest.approx(eval_perplexity_exact(model, corpus, FIRST), rel=1e-10)


def test_before_anything_is_cached_the_model_speaks_alone():
    model, corpus = model_of("Rnnlm"), ids(generator(), V, 9)
    log_p, (p,) = cache_probabilities(model, corpus, FIRST, 10, [0.5])
    assert p[0] == pytest.approx(math.exp(log_p[0]), rel=1e-12)


@on_both
@every_model
@pytest.mark.parametrize("time_size", [1, 7, 200])
def test_targets_that_the_loss_ignores_are_read_and_cached_and_not_asked_for(name, time_size):
    model, corpus = model_of(name), ids(generator(), V, 40)
    settings = {"cache_size": 10, "theta": 0.5, "time_size": time_size}
    log_p, (p_cache,) = cache_probabilities(model, corpus, FIRST, 10, [0.5], time_size)
    counts = to_cpu(corpus) != 3
    model.loss_layer.ignore_label = 3
    for weight in (0.0, 0.2):
        got = eval_perplexity_cache(model, corpus, FIRST, weight=weight, **settings)
        p = (1 - weight) * numpy.exp(log_p) + weight * p_cache
        assert got == pytest.approx(math.exp(-numpy.log(p[counts]).mean()), rel=1e-10)
    exact = eval_perplexity_exact(model, corpus, FIRST)
    got = eval_perplexity_cache(model, corpus, FIRST, weight=0.0, **settings)
    assert got == pytest.approx(exact, rel=1e-10)
    with pytest.raises(ValueError, match="eval_perplexity_cache: expected a target that counts"):
        eval_perplexity_cache(model, np.full(5, 3), FIRST, weight=0.2, **settings)


@pytest.mark.parametrize("last", [-2, V])
def test_the_last_target_is_looked_at_too(last):
    with pytest.raises(ValueError, match=f"expected targets in .*, got {last}$"):
        cache_probabilities(model_of("Rnnlm"), numpy.array([1, 2, last]), FIRST, 10, [0.5])


@on_both
def test_what_comes_later_does_not_change_what_was_said_before():
    model, corpus = model_of("Rnnlm"), ids(generator(), V, 30)
    changed = corpus.copy()
    changed[17] = (changed[17] + 1) % V
    before, after = (
        cache_probabilities(model, text, FIRST, 10, [0.5], time_size=7)
        for text in (corpus, changed)
    )
    for a, b in zip(before, after, strict=True):
        close(a[..., :17], b[..., :17])
        assert (abs(a - b)[..., 17:] > 1e-9).any()


def test_a_text_that_repeats_gets_better():
    model, text = Rnnlm(100, 16, 32, rng=1), numpy.tile(generator(3).integers(0, 100, 30), 8)
    static = eval_perplexity_exact(model, text, FIRST)
    cached = eval_perplexity_cache(model, text, FIRST, cache_size=60, theta=0, weight=0.7)
    assert cached < 0.5 * static
    # States tell apart what was followed by what: 60 words back each has come twice.
    model.layers[0].params[0][...] *= 100
    close_states = eval_perplexity_cache(model, text, FIRST, cache_size=60, theta=5, weight=0.7)
    assert close_states < 0.5 * cached


def test_the_probabilities_of_all_words_add_up_to_one():
    model, start = model_of("Rnnlm"), ids(generator(), V, 12)
    p = 0.0
    for word in range(V):
        text = np.concatenate([start, np.array([word])])
        log_p, (p_cache,) = cache_probabilities(model, text, FIRST, 8, [0.5])
        p += 0.6 * math.exp(log_p[-1]) + 0.4 * p_cache[-1]
    assert p == pytest.approx(1, rel=1e-12)


def test_several_thetas_at_once_are_each_by_itself():
    model, corpus = model_of("Rnnlm"), ids(generator(), V, 30)
    thetas = [0.0, 0.3, 2.0]
    _, together = cache_probabilities(model, corpus, FIRST, 10, thetas)
    for theta, row in zip(thetas, together, strict=True):
        same(row, cache_probabilities(model, corpus, FIRST, 10, [theta])[1][0])


def test_states_that_resemble_each_other_very_much_do_not_overflow():
    model, corpus = model_of("Rnnlm", "float32"), ids(generator(), V, 40)
    _, (p,) = cache_probabilities(model, corpus, FIRST, 10, [1e4])
    assert numpy.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()
    assert set(p[1:].round(6)) == {0.0, 1.0}  # only the one that is most alike counts


@on_both
def test_the_training_state_is_left_as_it_was():
    model, xs = model_of("BetterRnnlm"), ids(generator(), V, N, T)
    model.forward(xs, xs)
    states = model.get_state()
    eval_perplexity_cache(model, ids(generator(), V, 9), FIRST, cache_size=3, theta=1, weight=0.1)
    for kept, state in zip(model.get_state(), states, strict=True):
        for a, b in zip(kept, state, strict=True):
            same(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_size": 0}, "cache_size of 1 or more, got 0"),
        ({"theta": -1}, "theta of 0 or more, got -1"),
        ({"theta": math.nan}, "theta of 0 or more, got nan"),
        ({"weight": 1}, r"a weight in \[0, 1\), got 1"),
        ({"weight": -0.1}, r"a weight in \[0, 1\), got -0\.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    settings = {"cache_size": 5, "theta": 0.5, "weight": 0.1, **options}
    with pytest.raises(ValueError, match=f"^eval_perplexity_cache: expected {message}"):
        eval_perplexity_cache(model_of("Rnnlm"), ids(generator(), V, 9), FIRST, **settings)


def test_an_empty_text_and_a_model_without_layers_are_refused():
    settings = {"cache_size": 5, "theta": 0.5, "weight": 0.1}
    with pytest.raises(ValueError, match="eval_perplexity_cache: a corpus of 0 tokens"):
        eval_perplexity_cache(model_of("Rnnlm"), [], FIRST, **settings)
    with pytest.raises(TypeError, match=r"a model with layers and loss_layer.* got object"):
        eval_perplexity_cache(object(), [1], FIRST, **settings)


def test_a_perplexity_past_the_end_of_float64_is_infinite():
    assert mixed_perplexity(numpy.full(3, -800.0), numpy.zeros(3), 0.5) == math.inf


def test_a_huge_theta_prefers_the_most_similar_and_overflows_nowhere():
    model = tiny_model("Rnnlm", scale=0.5)
    corpus = ids(generator(), V, 30)
    settings = {"cache_size": 10, "weight": 0.5}
    found = [
        eval_perplexity_cache(model, corpus, FIRST, theta=t, **settings) for t in (1e30, 1e300)
    ]
    assert found[0] == found[1]
    assert np.isfinite(found[0])
