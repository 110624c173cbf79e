"""One token from a row of scores."""

import numpy as np
import pytest

from common.sampling import BLOCK, check_sampling, sample_id
from tests.builders import V, floats, generator

P = np.array([0.05, 0.4, 0.15, 0.3, 0.1])
SCORES = np.log(P)


def draw(times=8_000, seed=0, **options):
    """How often each id is drawn."""
    rng = generator(seed)
    drawn = [sample_id(SCORES, rng, **options) for _ in range(times)]
    return np.bincount(drawn, minlength=len(P)) / times


def test_ids_are_drawn_as_often_as_the_distribution_says():
    np.testing.assert_allclose(draw(), P, atol=0.025)


def test_ids_of_a_large_vocabulary_are_drawn_as_often_as_the_distribution_says():
    scores = np.full(3 * BLOCK + 1, -np.inf, dtype="float32")
    possible = [0, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK]
    scores[possible] = SCORES
    rng = generator()
    drawn = np.bincount([sample_id(scores, rng) for _ in range(8_000)], minlength=len(scores))
    assert np.flatnonzero(drawn).tolist() == possible
    np.testing.assert_allclose(drawn[possible] / 8_000, P, atol=0.025)


@pytest.mark.parametrize(("temperature", "power"), [(0.5, 2), (2.0, 0.5)])
def test_temperature_raises_probabilities_to_a_power(temperature, power):
    expected = P**power / (P**power).sum()
    np.testing.assert_allclose(draw(temperature=temperature), expected, atol=0.025)


def test_top_k_keeps_the_likeliest_and_their_proportions():
    expected = np.array([0, 0.4, 0.15, 0.3, 0]) / 0.85
    shares = draw(top_k=3)
    np.testing.assert_allclose(shares, expected, atol=0.025)
    assert (shares[[0, 4]] == 0).all()


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.86, [1, 3, 2, 4])]
)
def test_top_p_keeps_the_fewest_ids_that_reach_p(top_p, kept):
    assert np.flatnonzero(draw(2000, top_p=top_p)).tolist() == sorted(kept)


def test_top_k_and_top_p_together_keep_what_both_keep():
    assert np.flatnonzero(draw(2000, top_k=2, top_p=0.99)).tolist() == [1, 3]
    # after top_k the rest is a distribution of its own: 0.4 / 0.85 reaches 0.45
    assert np.flatnonzero(draw(2000, top_k=3, top_p=0.45)).tolist() == [1]


def test_settings_that_keep_everything_change_nothing():
    plain = [sample_id(SCORES, generator(seed)) for seed in range(50)]
    open_wide = [sample_id(SCORES, generator(seed), 1.0, 99, 1.0) for seed in range(50)]
    assert plain == open_wide
    assert len(set(plain)) > 1


def test_one_seed_draws_the_same_ids():
    scores = floats(generator(1), V)
    first, second = generator(5), generator(5)
    ids = [sample_id(scores, first) for _ in range(20)]
    assert ids == [sample_id(scores, second) for _ in range(20)]
    assert len(set(ids)) > 1


def test_an_id_of_minus_infinity_is_never_drawn():
    scores = SCORES.copy()
    scores[1] = -np.inf
    rng = generator()
    drawn = {sample_id(scores, rng) for _ in range(500)}
    assert drawn == {0, 2, 3, 4}


def test_scores_are_left_alone_whatever_is_cut():
    scores = SCORES.copy()
    sample_id(scores, generator(), 0.5, 2, 0.5)
    assert scores.tolist() == SCORES.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_and_small_temperatures_are_no_trouble(dtype):
    scores = np.array([-1e4, 1e4, 0], dtype=dtype)
    assert sample_id(scores, generator(), temperature=1e-6) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.0, None, None), "temperature above 0, got 0.0"),
        ((-1.0, None, None), "temperature above 0, got -1.0"),
        ((float("nan"), None, None), "temperature above 0, got nan"),
        ((float("inf"), None, None), "temperature above 0, got inf"),
        ((1.0, 0, None), "top_k of 1 or more, got 0"),
        ((1.0, None, 0.0), r"top_p in \(0, 1\], got 0.0"),
        ((1.0, None, 1.1), r"top_p in \(0, 1\], got 1.1"),
        ((1.0, None, float("nan")), r"top_p in \(0, 1\], got nan"),
    ],
)
def test_a_setting_that_makes_no_distribution_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(*settings)


def test_settings_in_range_pass():
    assert check_sampling(0.1, 1, 1.0) is None
    assert check_sampling(10, None, None) is None
