"""Dynamic evaluation: the exact protocol when nothing is learnt, causal, and nothing remains."""

import math

import numpy
import pytest

from common.np import np
from common.optimizer import Adam
from common.perplexity.dynamic_evaluation import (
    dynamic_losses,
    eval_perplexity_dynamic,
    gradient_scales,
)
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from models.char_rnn import CharRnn
from tests.builders import MODELS, N, T, V, close, generator, ids, same, snapshot, tiny_model

on_both = pytest.mark.usefixtures("backend")
FIRST = 2  # stands for <eos>


every_model = pytest.mark.parametrize("name", MODELS)


def model_of(name, dtype="float64"):
    """A model that drops what it can while training, with weights far from zero."""
    return tiny_model(name, dtype, dropout_ratio=0.4, scale=0.7)


def scales_of(model):
    rng = generator(5)
    return [np.asarray(0.1 + rng.random(param.shape)) for param in model.params]


@on_both
@every_model
@pytest.mark.parametrize("time_size", [1, 5, 100])
def test_with_a_rate_of_zero_it_is_the_exact_protocol(name, time_size):
    model, corpus = model_of(name), ids(generator(), V, 23)
    expected = eval_perplexity_exact(model, corpus, FIRST)
    for scales in (None, scales_of(model)):
        got = eval_perplexity_dynamic(
            model, corpus, FIRST, lr=0, decay=0.1, time_size=time_size, scales=scales
        )
        assert got == pytest.approx(expected, rel=1e-10)


@on_both
@every_model
@pytest.mark.parametrize("time_size", [1, 5, 100])
def test_targets_that_the_loss_ignores_have_no_share(name, time_size):
    model, corpus = model_of(name), ids(generator(), V, 40)
    corpus[10:20] = 3
    model.loss_layer.ignore_label = 3
    expected = eval_perplexity_exact(model, corpus, FIRST)
    got = eval_perplexity_dynamic(model, corpus, FIRST, lr=0, time_size=time_size)
    assert got == pytest.approx(expected, rel=1e-10)
    ignored = np.full(9, 3)
    with pytest.raises(ValueError, match="eval_perplexity_dynamic: expected a target that counts"):
        eval_perplexity_dynamic(model, ignored, FIRST, lr=0)
    with pytest.raises(ValueError, match="gradient_scales: expected a target that counts"):
        gradient_scales(model, ignored, batch_size=1)


def test_a_window_without_targets_that_count_has_no_share_in_the_scales():
    model, corpus = model_of("Rnnlm"), ids(generator(), 3, 21)
    expected = gradient_scales(model, corpus, batch_size=1, time_size=20)
    model.loss_layer.ignore_label = 3
    text = np.concatenate([corpus, np.full(40, 3)])
    for got, want in zip(gradient_scales(model, text, 1, 20), expected, strict=True):
        close(got, want, 1e-10)


def test_a_model_of_one_hot_rows_with_a_loss_of_its_own_is_measured_too():
    model, corpus = CharRnn(V, 5, rng=1, dtype="float64"), ids(generator(), V, 40)
    expected = eval_perplexity_exact(model, corpus, FIRST)
    assert eval_perplexity_dynamic(model, corpus, FIRST, lr=0) == pytest.approx(expected, rel=1e-10)
    text = numpy.tile(generator(3).integers(0, V, 5), 40)
    learning = eval_perplexity_dynamic(model, text, FIRST, lr=1.0)
    assert learning < 0.5 * eval_perplexity_exact(model, text, FIRST)


def by_the_formula(model, corpus, time_size, lr, decay, scales, epsilon):
    """Losses of the segments with a whole new set of weights after each, dropout away."""
    xs = numpy.concatenate([[FIRST], corpus[:-1]])[None]
    trained = snapshot(model)
    mean = numpy.concatenate([R.ravel() for R in scales]).mean()
    losses = []
    model.reset_state()
    for start in range(0, len(corpus), time_size):
        part = slice(start, start + time_size)
        x, t = xs[:, part], corpus[None, part]
        losses.append(float(model.forward(x, t)) * t.size)
        model.backward()
        for w, g, w0, R in zip(model.params, model.grads, trained, scales, strict=True):
            strength = numpy.minimum(R / mean, 1 / decay)
            w += -lr * g / (R + epsilon) + decay * strength * (w0 - w)
    model.reset_state()
    for param, weight in zip(model.params, trained, strict=True):
        param[...] = weight
    return numpy.array(losses)


@every_model
@pytest.mark.parametrize("decay", [0.05, 0.9])  # with 0.9 the bound of the pull is reached
def test_each_step_is_the_papers(name, decay):
    model, corpus = tiny_model(name, "float64", scale=0.7), ids(generator(), V, 23)
    settings = {"time_size": 4, "lr": 0.05, "decay": decay, "epsilon": 0.01}
    scales = scales_of(model)
    expected = by_the_formula(model, corpus, scales=scales, **settings)
    close(dynamic_losses(model, corpus, FIRST, scales=scales, **settings), expected, 1e-10)
    # Plain descent is the same with ones.
    ones = [numpy.ones_like(R) for R in scales]
    plain = {**settings, "epsilon": 0}
    expected = by_the_formula(model, corpus, scales=ones, **plain)
    close(dynamic_losses(model, corpus, FIRST, **plain), expected, 1e-10)


@on_both
@every_model
def test_what_comes_later_does_not_change_what_was_scored_before(name):
    model, corpus = model_of(name), ids(generator(), V, 30)
    changed = corpus.copy()
    changed[17] = (changed[17] + 1) % V  # in the fourth segment of five tokens
    a, b = (dynamic_losses(model, text, FIRST, lr=0.5) for text in (corpus, changed))
    close(a[:3], b[:3], 1e-12)
    assert float(abs(a[3:] - b[3:]).min()) > 1e-6


@on_both
@every_model
def test_weights_state_ratios_and_masks_are_left_as_they_were(name):
    model, untouched, xs = model_of(name), model_of(name), ids(generator(), V, N, T)
    same(model.forward(xs, xs), untouched.forward(xs, xs))
    eval_perplexity_dynamic(model, ids(generator(), V, 30), FIRST, lr=0.5, decay=0.01)
    for param, weight in zip(model.params, untouched.params, strict=True):
        same(param, weight)
    # The next window of training goes on from the same state, with the same masks.
    same(model.forward(xs, xs), untouched.forward(xs, xs))
    for one in (model, untouched):
        one.backward()
    for grad, expected in zip(model.grads, untouched.grads, strict=True):
        same(grad, expected)


def test_an_interruption_gives_the_weights_back(monkeypatch):
    model = model_of("AwdRnnlm")
    ratio = model.layers[0].dropout_ratio
    weights, calls = snapshot(model), iter(range(3))
    forward = model.loss_layer.forward

    def stop(hs, ts):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return forward(hs, ts)

    monkeypatch.setattr(model.loss_layer, "forward", stop)
    with pytest.raises(KeyboardInterrupt):
        eval_perplexity_dynamic(model, ids(generator(), V, 30), FIRST, lr=0.5)
    for param, weight in zip(model.params, weights, strict=True):
        same(param, weight)
    assert model.layers[0].dropout_ratio == ratio > 0


def trained_model(corpus):
    model = MODELS["Rnnlm"](V, 8, 16, rng=1)
    trainer = RnnlmTrainer(model, Adam(0.02), on_record=lambda record: None)
    trainer.fit(corpus[:-1], corpus[1:], max_epoch=3, batch_size=4, time_size=5)
    return model


@pytest.mark.parametrize("with_scales", [False, True])
def test_a_text_that_repeats_something_unheard_of_gets_better(with_scales):
    training = generator(1).integers(0, V, 400)
    model = trained_model(training)
    text = numpy.tile([0, 3, 1, 6, 2, 5], 60)
    scales = gradient_scales(model, training, batch_size=4) if with_scales else None
    lr = 0.01 if with_scales else 1.0
    static = eval_perplexity_exact(model, text, FIRST)
    dynamic = eval_perplexity_dynamic(model, text, FIRST, lr=lr, scales=scales, decay=1e-3)
    assert dynamic < 0.6 * static


@on_both
@every_model
def test_scales_are_the_root_mean_square_of_the_gradients(name):
    model, corpus = model_of(name), ids(generator(), V, 31)
    model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))
    states = model.get_state()
    scales = gradient_scales(model, corpus, batch_size=3, time_size=4)
    for kept, state in zip(model.get_state(), states, strict=True):
        same(kept[0], state[0])
    assert [R.shape for R in scales] == [param.shape for param in model.params]

    plain = tiny_model(name, "float64", scale=0.7)
    squares = [np.zeros_like(param) for param in plain.params]
    xs, ts = corpus[:-1].reshape(3, 10), corpus[1:].reshape(3, 10)
    for start in (0, 4, 8):  # the last window has two steps
        part = slice(start, start + 4)
        plain.forward(xs[:, part], ts[:, part])
        plain.backward()
        for total, grad in zip(squares, plain.grads, strict=True):
            total += grad**2
    for R, total in zip(scales, squares, strict=True):
        close(R, np.sqrt(total / 3), 1e-10)


def test_max_windows_reads_only_the_beginning():
    model, corpus = model_of("Rnnlm"), ids(generator(), V, 41)
    few = gradient_scales(model, corpus, batch_size=1, time_size=5, max_windows=2)
    for a, b in zip(few, gradient_scales(model, corpus[:11], 1, 5), strict=True):
        same(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr of 0 or more, got -1"),
        ({"lr": math.nan}, "lr of 0 or more, got nan"),
        ({"decay": 1.5}, r"decay in 0\.\.1, got 1\.5"),
        ({"decay": -0.1}, "decay of 0 or more, got -0.1"),
        ({"scales": []}, "scales of shapes"),
        ({"scales": [1, 2], "epsilon": 0}, "epsilon above 0, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    model = model_of("Rnnlm")
    if "epsilon" in options:
        options = {**options, "scales": scales_of(model)}
    with pytest.raises(ValueError, match=f"^eval_perplexity_dynamic: expected {message}"):
        eval_perplexity_dynamic(model, ids(generator(), V, 9), FIRST, **{"lr": 1.0, **options})


def test_an_empty_text_a_window_of_nothing_and_a_model_without_layers_are_refused():
    model, text = model_of("Rnnlm"), ids(generator(), V, 9)
    with pytest.raises(ValueError, match="eval_perplexity_dynamic: a corpus of 0 tokens"):
        eval_perplexity_dynamic(model, [], FIRST, lr=1)
    with pytest.raises(ValueError, match="expected time_size of 1 or more, got 0"):
        eval_perplexity_dynamic(model, text, FIRST, lr=1, time_size=0)
    with pytest.raises(ValueError, match="gradient_scales: expected max_windows of 1 or more"):
        gradient_scales(model, text, 1, max_windows=0)
    with pytest.raises(TypeError, match=r"a model with layers and loss_layer.* got object"):
        eval_perplexity_dynamic(object(), text, FIRST, lr=1)
