"""Resamples that can be counted by hand, and intervals that theory knows."""

import math

import numpy as np
import pytest

from common.perplexity import paired_bootstrap as module
from common.perplexity.paired_bootstrap import paired_bootstrap, resampled_means
from tests.builders import generator


def test_two_sentences_make_three_texts_as_often_as_a_coin_says():
    values = np.array([[1.0, -1.0, -1.0, -1.0]])
    means = resampled_means(
        values, np.array([0, 1, 1, 1]), np.ones((1, 4), bool), 40_000, generator()
    )
    drawn, counts = np.unique(means, return_counts=True)
    # twice the second, each once, twice the first: a mean over tokens, not over sentences
    assert drawn.tolist() == [-1.0, -0.5, 1.0]
    np.testing.assert_allclose(counts / 40_000, [0.25, 0.5, 0.25], atol=0.01)


def test_all_values_and_groups_are_of_the_same_resamples():
    rng = generator()
    values, sentence_of = rng.normal(size=(2, 60)), np.repeat(np.arange(20), 3)
    first = np.arange(60) % 3 == 0
    means = resampled_means(
        np.vstack([values, values.sum(axis=0)]),
        sentence_of,
        np.stack([first, ~first, np.ones(60, bool)]),
        50,
        rng,
    )
    np.testing.assert_allclose(means[:, 2], means[:, 0] + means[:, 1])
    np.testing.assert_allclose(means[..., 2], means[..., 0] / 3 + means[..., 1] * 2 / 3)


def test_a_group_that_a_resample_lacks_has_no_mean_there():
    rare = np.array([[True, False]])
    means = resampled_means(np.array([[3.0, 9.0]]), np.array([0, 1]), rare, 4000, generator())
    assert np.isnan(means).mean() == pytest.approx(0.25, abs=0.03)  # the other one twice
    assert set(means[~np.isnan(means)]) == {3.0}


def test_how_many_are_held_at_once_changes_nothing(monkeypatch):
    arguments = np.arange(30.0)[None], np.repeat(np.arange(10), 3), np.ones((1, 30), bool), 25
    whole = resampled_means(*arguments, generator())
    monkeypatch.setattr(module, "BLOCK", 40)
    np.testing.assert_allclose(resampled_means(*arguments, generator()), whole, rtol=1e-14)


def test_the_interval_is_that_of_a_mean_of_independent_sentences():
    S = 2000
    losses = np.stack([np.zeros(S), generator().normal(0.03, 1, size=S)])
    kinds = {"text": {"all": np.ones(S, bool)}}
    found = paired_bootstrap(losses, np.arange(S), kinds, 4000, generator(1))
    [difference] = found["text"][0].differences
    mean, error = losses[1].mean(), losses[1].std() / math.sqrt(S)
    assert difference.nll_difference == pytest.approx(mean)
    low, high = difference.interval
    assert low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    below_zero = math.erfc(mean / error / math.sqrt(2)) / 2
    assert difference.wins == pytest.approx(below_zero, abs=0.02)


def test_what_is_hard_for_both_is_not_in_the_interval():
    hard = generator().gamma(1, 3, size=500)
    losses = np.stack([hard, hard + math.log(2)])
    kinds = {"text": {"all": np.ones(500, bool)}}
    found = paired_bootstrap(losses, np.repeat(np.arange(50), 10), kinds, 200, generator())
    [difference] = found["text"][0].differences
    assert difference.interval == pytest.approx((math.log(2), math.log(2)))
    assert difference.ratio == pytest.approx(2)
    assert difference.ratio_interval == pytest.approx((2, 2))
    assert difference.is_claimed and difference.wins == 0


def test_a_run_against_itself_differs_by_nothing():
    losses = np.tile(generator().gamma(1, 3, size=100), (2, 1))
    kinds = {"text": {"all": np.ones(100, bool)}}
    found = paired_bootstrap(losses, np.repeat(np.arange(20), 5), kinds, 100, generator())
    [difference] = found["text"][0].differences
    assert (difference.nll_difference, difference.interval) == (0.0, (0.0, 0.0))
    assert (difference.ratio, difference.wins, difference.is_claimed) == (1.0, 0.5, False)


def test_every_group_has_its_own_perplexities_and_every_run_is_compared_with_the_first():
    even = np.arange(40) % 2 == 0
    losses = np.log([np.full(40, 8.0), np.where(even, 4.0, 16.0), np.full(40, 2.0)])
    kinds = {"a": {"even": even, "none": np.zeros(40, bool)}, "b": {"odd": ~even}}
    found = paired_bootstrap(losses, np.repeat(np.arange(20), 2), kinds, 100, generator())
    [even_group], [odd_group] = found["a"], found["b"]
    assert (even_group.name, even_group.tokens, odd_group.name) == ("even", 20, "odd")
    assert even_group.perplexities == pytest.approx([8, 4, 2])
    assert odd_group.perplexities == pytest.approx([8, 16, 2])
    assert [d.ratio for d in even_group.differences] == pytest.approx([1 / 2, 1 / 4])
    assert [d.ratio for d in odd_group.differences] == pytest.approx([2, 1 / 4])
    assert [d.wins for d in odd_group.differences] == [0, 1]


@pytest.mark.parametrize(("num_sentences", "is_claimed"), [(9, False), (10, True)])
def test_of_few_sentences_nothing_is_claimed(num_sentences, is_claimed):
    losses = np.stack([np.zeros(40), np.ones(40)])
    rare = np.arange(40) < num_sentences
    found = paired_bootstrap(losses, np.arange(40), {"a": {"rare": rare}}, 500, generator())
    [difference] = found["a"][0].differences
    assert difference.nll_difference == 1 and difference.is_claimed == is_claimed
    assert difference.interval == ((1, 1) if is_claimed else (-math.inf, math.inf))
    assert math.isnan(difference.wins) == (not is_claimed)


@pytest.mark.parametrize(
    ("resamples", "sentence_of", "message"),
    [
        (0, np.zeros(4, int), "resamples of 1 or more, got 0"),
        (5, np.zeros(3, int), r"sentence_of \(4,\) and members \(G, 4\), got \(3,\) and \(1, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(resamples, sentence_of, message):
    members = np.ones((1, 4), bool)
    with pytest.raises(ValueError, match=message):
        resampled_means(np.ones((1, 4)), sentence_of, members, resamples, generator())
