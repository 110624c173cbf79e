"""How far back a model looks: models whose reach is known, changes made by hand, refusals."""

import math

import numpy as np
import pytest

from common.functions import log_softmax
from common.optimizer import Adam
from common.perplexity import effective_context
from common.perplexity.effective_context import (
    ONE_PERCENT,
    first_below,
    gradient_norms,
    loss_increases,
    sample_texts,
)
from common.perplexity.per_token import token_losses
from common.trainer import RnnlmTrainer
from datasets import markov
from models import Rnnlm
from tests.builders import MODELS, V, close, generator, same, tiny_model

on_both = pytest.mark.usefixtures("backend")
every_model = pytest.mark.parametrize("name", MODELS)
every_change = pytest.mark.parametrize("change", ["replace", "shuffle", "drop"])

LENGTH, TARGETS = 9, 7
DELAY = 2


def model_of(name="Rnnlm"):
    """A model that drops what it can while training, with weights far from zero."""
    return tiny_model(name, "float64", dropout_ratio=0.4, scale=0.7)


def text_of(length=60, seed=4):
    return generator(seed).integers(0, V, length).astype("int32")


def texts_of(tokens, targets=TARGETS, length=LENGTH):
    return sample_texts(tokens, length, targets, generator(8))


def delay_line(words=3):
    """An RNN that says again what it read DELAY steps ago, and forgets it then."""
    blocks = DELAY + 1
    model = Rnnlm(words, words, words * blocks, rng=0, dtype="float64", cell="rnn")
    embed_W, Wx, Wh, b, W, bias = model.params
    for param in (Wx, Wh, b, W, bias):
        param[...] = 0
    embed_W[...] = 0.5 * np.eye(words)
    Wx[:, :words] = np.eye(words)
    for block in range(DELAY):  # from a block to the next, a step later
        here, there = (slice(k * words, (k + 1) * words) for k in (block, block + 1))
        Wh[here, there] = np.eye(words)
    W[-words:] = 9 * np.eye(words)
    return model


# ---- models whose reach is known ----


def test_a_delay_line_looks_at_one_step_alone():
    model, text = delay_line(), np.tile([0, 1, 2], 40)  # each word is that of three words before
    texts = sample_texts(text, 10, 20, generator())
    norms = gradient_norms(model, texts, 6)
    assert np.all(norms[:, DELAY] > 0)
    assert np.all(np.delete(norms, DELAY, axis=1) == 0)

    kept = [1, 2, 3, 4, 10]
    losses, increases = loss_increases(model, texts, kept, "replace", text, generator())
    assert losses.max() < 0.2
    means = increases.mean(axis=0)
    assert np.all(means[:2] > 0.5)
    close(increases[:, 2:], np.zeros((20, 3)))
    assert kept[first_below(means, ONE_PERCENT)] == DELAY + 1


@pytest.mark.parametrize("order", [1, 2])
def test_a_trained_model_looks_as_far_back_as_its_source(order):
    corpus = markov.load_corpus(order=order, train_size=20_000, valid_size=2_000)
    model = Rnnlm(corpus.vocab_size, 8, 16, rng=1, cell="rnn")
    RnnlmTrainer(model, Adam(0.01), on_record=lambda record: None).fit(
        corpus.train[:-1], corpus.train[1:], max_epoch=2, batch_size=20, time_size=10
    )
    texts = sample_texts(corpus.valid, 20, 500, generator())
    norms = gradient_norms(model, texts, 10).mean(axis=0)
    assert np.all(norms[:order] > 0.5 * norms[0])
    assert np.all(norms[order:] < 0.5 * norms[0])
    for change in ("replace", "shuffle", "drop"):
        _, increases = loss_increases(model, texts, [1, 2, 3], change, corpus.valid, generator())
        means = increases.mean(axis=0)
        assert np.all(means[: order - 1] > 0.2)
        assert np.all(means[order - 1 :] < 0.1)


# ---- what is computed ----


@on_both
@every_model
def test_a_norm_is_that_of_the_step_k_back_after_all_words_before_it(name):
    model, texts = model_of(name), texts_of(text_of())
    norms = gradient_norms(model, texts, 4)
    assert (norms.shape, norms.dtype, type(norms)) == ((TARGETS, 4), "float64", np.ndarray)
    assert np.all(norms > 0)
    # A shorter reach reads the same words, and has the same first norms.
    close(gradient_norms(model, texts, 2), norms[:, :2], 1e-10)
    close(gradient_norms(model, texts, LENGTH)[:, :4], norms, 1e-10)


@on_both
@every_model
@every_change
def test_the_text_as_it_is_has_the_losses_of_the_exact_protocol(name, change):
    model, text = model_of(name), text_of(LENGTH + 1)
    expected = token_losses(model, text[1:], int(text[0]))[-1]
    losses, increases = loss_increases(model, text[None], [1, LENGTH], change, text, generator())
    assert losses == pytest.approx([expected], rel=1e-10)
    assert increases[0, 1] == pytest.approx(0, abs=1e-10)  # nothing is further back
    assert abs(increases[0, 0]) > 1e-6


def changed_by_hand(change, xs, k, text, rng):
    """The words before each target, all but the last ``k`` changed."""
    far = xs.shape[1] - k
    if change == "drop":
        return xs[:, far:]
    changed = xs.copy()
    if change == "replace":
        changed[:, :far] = rng.choice(text, xs.shape)[:, :far]
    else:
        order = rng.random(xs.shape)[:, :far].argsort(axis=1)
        changed[:, :far] = np.take_along_axis(xs[:, :far], order, axis=1)
    return changed


@every_model
@every_change
def test_an_increase_is_that_of_the_changed_text(name, change):
    model, text = model_of(name), text_of()
    texts, kept = texts_of(text), [5, 1, 3]
    losses, increases = loss_increases(model, texts, kept, change, text, generator(6))
    for column, k in enumerate(kept):
        words = changed_by_hand(change, texts[:, :-1], k, text, generator(6))
        model.reset_state()
        log_p = log_softmax(model.predict(words)[:, -1])
        expected = -log_p[np.arange(TARGETS), texts[:, -1]]
        close(losses + increases[:, column], expected, 1e-10)


@every_change
def test_it_does_not_matter_how_many_texts_are_read_side_by_side(change, monkeypatch):
    model, text = model_of(), text_of()
    texts = texts_of(text)
    found = []
    for streams, window in ((20, 100), (3, 2)):
        monkeypatch.setattr(effective_context, "STREAMS", streams)
        monkeypatch.setattr(effective_context, "WINDOW", window)
        _, increases = loss_increases(model, texts, [1, 4], change, text, generator(6))
        found.append((gradient_norms(model, texts, 5), increases))
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-10)


def test_the_training_state_is_kept():
    model, text = model_of("AwdRnnlm"), text_of()
    xs = text[:12].reshape(2, 6)
    model.forward(xs, xs)
    before = model.get_state()
    gradient_norms(model, texts_of(text), 3)
    loss_increases(model, texts_of(text), [1, 2], "replace", text, generator())
    for kept, state in zip(model.get_state(), before, strict=True):
        for a, b in zip(kept, state, strict=True):
            same(a, b)


# ---- the targets ----


def test_targets_are_drawn_once_each_and_stand_behind_their_words():
    tokens = np.arange(100)
    texts = sample_texts(tokens, 5, 30, generator(1))
    assert texts.shape == (30, 6)
    assert np.all(np.diff(texts, axis=1) == 1)
    targets = texts[:, -1]
    assert np.all(np.diff(targets) > 0)
    assert targets[0] >= 5 and targets[-1] <= 99
    same(sample_texts(tokens, 5, 30, generator(1)), texts)
    assert not np.array_equal(sample_texts(tokens, 5, 30, generator(2)), texts)


def test_of_a_short_text_every_target_is_taken():
    same(sample_texts(np.arange(9), 6, 50, generator())[:, -1], np.array([6, 7, 8]))


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([3, 2, 1], None),
        ([3, 0.5, 2, 0.9, 0.1], 3),
        ([0.5, 0.2], 0),
        ([2, 1], None),
        ([2, 0.999], 1),
        ([0.1, math.nan], None),
    ],
)
def test_the_place_is_that_from_which_on_all_is_below(values, place):
    assert first_below(np.array(values), 1) == place


# ---- what is refused ----


@pytest.mark.parametrize(
    ("tokens", "length", "number", "message"),
    [
        (np.arange(5), 5, 3, r"expected at least 6 tokens, one after 5 others, got \(5,\)"),
        (np.zeros((2, 9)), 1, 3, r"got \(2, 9\)"),
        (np.arange(9), 0, 3, "expected length of 1 or more, got 0"),
        (np.arange(9), 2, 0, "expected num_targets of 1 or more, got 0"),
    ],
)
def test_texts_that_cannot_be_drawn_are_refused(tokens, length, number, message):
    with pytest.raises(ValueError, match=f"^sample_texts: .*{message}"):
        sample_texts(tokens, length, number, generator())


@pytest.mark.parametrize("steps", [0, LENGTH + 1])
def test_steps_beyond_the_text_are_refused(steps):
    model, text = model_of(), text_of()
    expected = f"in 1..{LENGTH}, the words before each target; got {steps}"
    with pytest.raises(ValueError, match=f"^gradient_norms: expected reach {expected}"):
        gradient_norms(model, texts_of(text), steps)
    with pytest.raises(ValueError, match=f"^loss_increases: expected kept {expected}"):
        loss_increases(model, texts_of(text), [2, steps], "drop", text, generator())


def test_targets_that_the_loss_ignores_ids_out_of_range_and_other_models_are_refused():
    model, texts = model_of(), texts_of(text_of())
    arguments = [1], "drop", text_of(), generator()
    with pytest.raises(TypeError, match=r"a model with layers and loss_layer.* got object"):
        gradient_norms(object(), texts, 2)
    with pytest.raises(TypeError, match=r"a model with layers and loss_layer.* got object"):
        loss_increases(object(), texts, *arguments)
    with pytest.raises(ValueError, match=r"expected texts of shape \(targets, length \+ 1\)"):
        gradient_norms(model, texts[0], 2)
    wrong = texts.copy()
    wrong[3, -1] = V
    with pytest.raises(ValueError, match=f"in 0..{V - 1}, got {V}"):
        gradient_norms(model, wrong, 2)
    with pytest.raises(ValueError, match=f"in 0..{V - 1}, got {V}"):
        loss_increases(model, wrong, *arguments)
    model.loss_layer.ignore_label = int(texts[0, -1])
    for measure in (
        lambda: gradient_norms(model, texts, 2),
        lambda: loss_increases(model, texts, *arguments),
    ):
        with pytest.raises(ValueError, match="expected targets that all count, got"):
            measure()
