"""Continuing a text, one token at a time."""

from itertools import pairwise

import numpy as np
import pytest

from tests.builders import MODELS, N, T, V, generator, ids, same, tiny_model

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def model():
    """A model far enough from uniform that every setting shows."""
    return tiny_model("Rnnlm", scale=1.5)


def by_hand(model, prompt, length):
    """The most likely id after everything so far, read again from its beginning each time."""
    text = list(prompt)
    for _ in range(length):
        model.reset_state()
        text.append(int(model.predict(np.array([text]))[0, -1].argmax()))
    model.reset_state()
    return text


@pytest.mark.usefixtures("backend")
@every_model
@pytest.mark.parametrize("prompt", [[2], [3, 1, 2], [0, 0, 0, 6]])
def test_greedy_takes_the_most_likely_id_after_the_whole_text_so_far(name, prompt):
    model = tiny_model(name, "float64", scale=1.5)
    assert model.generate(prompt, 12, greedy=True) == by_hand(model, prompt, 12)


@pytest.mark.parametrize("bias", [np.nan, -np.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_scores_that_leave_no_id_to_choose_are_refused(model, bias, greedy):
    model.params[-1][3:] = bias
    with pytest.raises(ValueError, match="scores without NaN and with one above -inf"):
        model.generate(2, 5, greedy=greedy, skip_ids=[0, 1, 2])


def test_every_id_of_the_prompt_is_read_not_only_the_last(model):
    ends = {tuple(model.generate([k, 2], 8, greedy=True)[2:]) for k in range(V)}
    assert len(ends) > 1


def test_the_start_may_be_one_id_or_an_array(model):
    expected = model.generate([2], 5, greedy=True)
    assert expected[0] == 2
    assert len(expected) == 6
    assert model.generate(2, 5, greedy=True) == expected
    assert model.generate(np.array([2]), 5, greedy=True) == expected
    assert {type(k) for k in expected} == {int}


def test_a_length_of_zero_is_the_start(model):
    assert model.generate([1, 2], 0) == [1, 2]


def test_the_start_is_not_changed(model):
    start = [1, 2]
    model.generate(start, 5, rng=1)
    assert start == [1, 2]


def test_a_seed_writes_the_same_text_and_another_seed_another(model):
    texts = [tuple(model.generate(0, 30, rng=seed)) for seed in (5, 5, 6, 7)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_a_generator_is_drawn_from_and_moves_on(model):
    rng = generator(5)
    first, second = model.generate(0, 30, rng=rng), model.generate(0, 30, rng=rng)
    assert first == model.generate(0, 30, rng=5)
    assert second != first


@every_model
@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-4}])
def test_settings_that_leave_one_id_are_greedy_whatever_the_seed(name, settings):
    model = tiny_model(name, scale=1.5)
    expected = model.generate(0, 20, greedy=True)
    for seed in range(3):
        assert model.generate(0, 20, rng=seed, **settings) == expected
    assert model.generate(0, 20, rng=0) != expected


def test_a_high_temperature_writes_more_different_pairs_than_a_low_one(model):
    def pairs(temperature):
        text = model.generate(0, 300, temperature=temperature, rng=1)
        return len(set(pairwise(text)))

    assert pairs(0.2) < pairs(1.0) < pairs(5.0)


@pytest.mark.parametrize("greedy", [False, True])
def test_ids_to_skip_are_never_chosen(model, greedy):
    without = model.generate(0, 60, greedy=greedy, rng=1)
    skipped = set(without[1:]) - {without[0]}
    skip = sorted(skipped)[:2]
    assert skip
    text = model.generate(0, 60, greedy=greedy, skip_ids=skip, rng=1)
    assert not set(skip) & set(text)
    assert len(text) == 61


def test_an_id_to_skip_may_stand_in_the_prompt(model):
    text = model.generate([3, 4], 20, skip_ids={3, 4}, rng=1)
    assert text[:2] == [3, 4]
    assert not {3, 4} & set(text[2:])


@pytest.mark.parametrize("greedy", [False, True])
def test_all_ids_skipped_leave_nothing_to_choose(model, greedy):
    with pytest.raises(ValueError):
        model.generate(0, 5, greedy=greedy, skip_ids=range(V))


@pytest.mark.parametrize("bad", [V, -1])
def test_an_id_to_skip_that_does_not_exist_is_an_error(model, bad):
    with pytest.raises(ValueError):
        model.generate(0, 5, skip_ids=[bad], rng=1)


def test_text_ends_with_the_first_id_to_stop_at(model):
    whole = model.generate(0, 60, rng=1)
    stop = whole[10]
    text = model.generate(0, 60, stop_ids=[stop], rng=1)
    assert text == whole[: 1 + whole.index(stop, 1)]
    assert text[-1] == stop
    assert stop not in text[1:-1]


def test_an_id_to_stop_at_in_the_prompt_stops_nothing(model):
    text = model.generate([2], 5, skip_ids=[2], stop_ids=[2], rng=1)
    assert len(text) == 6


@every_model
def test_the_training_state_is_left_alone(name):
    xs, ts = ids(generator(), V, N, T), ids(generator(1), V, N, T)
    losses = []
    for writes in (False, True):
        model = tiny_model(name, dropout_ratio=0.3)
        model.forward(xs, ts)
        before = model.get_state()
        if writes:
            model.generate([1, 2], 10, rng=1)
            for was, now in zip(before, model.get_state(), strict=True):
                for a, b in zip(was, now, strict=True):
                    same(b, a)
        losses.append(float(model.forward(xs, ts)))
    assert losses[0] == losses[1]


def test_what_was_trained_on_does_not_show_in_the_text(model):
    fresh = model.generate(0, 20, rng=1)
    model.forward(ids(generator(), V, N, T), ids(generator(), V, N, T))
    assert model.generate(0, 20, rng=1) == fresh


def test_dropout_is_off():
    model = tiny_model("BetterRnnlm", dropout_ratio=0.5, scale=1.5)
    assert model.generate(0, 30, rng=1) == model.generate(0, 30, rng=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature above 0, got 0"),
        ({"temperature": -1.0}, "temperature above 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature above 0, got nan"),
        ({"top_k": 0}, "top_k of 1 or more, got 0"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"top_p in \(0, 1\], got 1.5"),
    ],
)
def test_a_setting_out_of_range_is_an_error(model, settings, message):
    with pytest.raises(ValueError, match=message):
        model.generate(0, 5, **settings)


@pytest.mark.parametrize("start", [[], (), np.array([], dtype=int)])
def test_an_empty_start_is_an_error(model, start):
    with pytest.raises(ValueError, match="expected at least one start id"):
        model.generate(start, 5)


@pytest.mark.parametrize("start", [V, -1, [0, V]])
def test_a_start_out_of_range_is_an_error_and_the_state_is_still_kept(model, start):
    model.predict(np.array([[1, 2]]))
    (before,) = model.get_state()
    with pytest.raises(ValueError, match="TimeEmbedding: expected xs in"):
        model.generate(start, 5)
    for was, now in zip(before, model.get_state()[0], strict=True):
        same(now, was)


def test_a_start_that_is_no_integer_is_a_type_error(model):
    with pytest.raises(TypeError, match="integers, got float64"):
        model.generate([0.5], 5)


def test_a_long_prompt_leaves_the_state_of_reading_it_word_by_word():
    model, prompt = tiny_model("Rnnlm", "float64", scale=1.0), ids(generator(), V, 1203).tolist()
    text = model.generate(prompt, 5, greedy=True)
    model.reset_state()
    for token in prompt:
        scores = model.predict(np.asarray([[token]]))
    assert text[: len(prompt)] == prompt
    assert text[len(prompt)] == int(scores[0, -1].argmax())
