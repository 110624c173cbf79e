"""One token from a row of scores."""

import numpy as np
import pytest

from models.language_model import BLOCK, check_sampling, sample_id
from tests.builders import V, floats, generator

P = np.array([0.05, 0.4, 0.15, 0.3, 0.1])
SCORES = np.log(P)

both_ways = pytest.mark.parametrize("dtype", ["float32", "float64"])  # compiled, and in NumPy


def draw(times=8_000, seed=0, dtype="float64", **options):
    """How often each id is drawn."""
    rng, scores = generator(seed), SCORES.astype(dtype)
    drawn = [sample_id(scores, rng, **options) for _ in range(times)]
    return np.bincount(drawn, minlength=len(P)) / times


@both_ways
def test_ids_are_drawn_as_often_as_the_distribution_says(dtype):
    np.testing.assert_allclose(draw(dtype=dtype), P, atol=0.025)


class Dice:
    """In place of a generator: says what is drawn."""

    def __init__(self, share):
        self.share = share

    def random(self):
        return self.share


@both_ways
@pytest.mark.parametrize("length", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 1029])
def test_the_id_is_the_one_at_which_the_running_sum_passes_the_draw(length, dtype):
    scores = 3 * floats(generator(7), length).astype(dtype)
    p = np.exp(scores.astype("float64"))
    up_to = np.cumsum(p / p.sum())
    for share in generator(8).random(200):
        if abs(up_to - share).min() > 1e-6:  # closer, and rounding may decide
            assert sample_id(scores, Dice(share)) == np.searchsorted(up_to, share)


@both_ways
@pytest.mark.parametrize("share", [0, 1 - 2**-53])
def test_the_ends_of_the_draw_are_ids_that_are_possible(share, dtype):
    scores = np.full(5 * BLOCK, -np.inf, dtype=dtype)
    scores[[BLOCK + 3, BLOCK + 9, 3 * BLOCK + 5]] = 0
    expected = BLOCK + 3 if share == 0 else 3 * BLOCK + 5
    assert sample_id(scores, Dice(share)) == expected


@both_ways
def test_a_draw_at_the_very_end_is_an_id_that_is_possible_however_the_sums_round(dtype):
    rng = generator(9)
    for length in rng.integers(1, 400, 300):
        scores = floats(rng, length).astype(dtype)
        scores[rng.random(length) < 0.3] = -np.inf
        scores[rng.integers(length)] = 0
        drawn = sample_id(scores, Dice(1 - 2**-53))
        assert drawn < length and scores[drawn] > -np.inf


@both_ways
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_make_no_distribution_are_refused(wrong, dtype):
    scores = np.zeros(300, dtype=dtype)
    scores[200] = wrong
    for bad in (scores, np.full(300, -np.inf, dtype=dtype)):
        with pytest.raises(ValueError, match="without NaN and with one above -inf"):
            sample_id(bad, generator())
        with pytest.raises(ValueError, match="without NaN and with one above -inf"):
            sample_id(bad, generator(), top_k=5)


@both_ways
def test_no_scores_at_all_are_refused(dtype):
    with pytest.raises(ValueError):
        sample_id(np.empty(0, dtype), generator())


@both_ways
def test_ids_of_a_large_vocabulary_are_drawn_as_often_as_the_distribution_says(dtype):
    scores = np.full(3 * BLOCK + 1, -np.inf, dtype=dtype)
    possible = [0, BLOCK - 1, BLOCK, 2 * BLOCK + 7, 3 * BLOCK]
    scores[possible] = SCORES
    rng = generator()
    drawn = np.bincount([sample_id(scores, rng) for _ in range(8_000)], minlength=len(scores))
    assert np.flatnonzero(drawn).tolist() == possible
    np.testing.assert_allclose(drawn[possible] / 8_000, P, atol=0.025)


@both_ways
@pytest.mark.parametrize(("temperature", "power"), [(0.5, 2), (2.0, 0.5)])
def test_temperature_raises_probabilities_to_a_power(temperature, power, dtype):
    expected = P**power / (P**power).sum()
    np.testing.assert_allclose(draw(temperature=temperature, dtype=dtype), expected, atol=0.025)


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


@both_ways
def test_one_seed_draws_the_same_ids(dtype):
    scores = floats(generator(1), V).astype(dtype)
    first, second = generator(5), generator(5)
    ids = [sample_id(scores, first) for _ in range(20)]
    assert ids == [sample_id(scores, second) for _ in range(20)]
    assert len(set(ids)) > 1


@both_ways
@pytest.mark.parametrize("temperature", [1e46, 1e300])
def test_the_highest_temperatures_make_all_alike_but_what_is_impossible(temperature, dtype):
    scores = np.array([1e4, 0, -np.inf, -1e4], dtype=dtype)
    drawn = [sample_id(scores, Dice(share), temperature) for share in (0.1, 0.5, 0.9)]
    assert drawn == [0, 1, 3]
    assert sample_id(scores, Dice(0.9), temperature, top_k=2) == 1


@both_ways
def test_an_id_of_minus_infinity_is_never_drawn(dtype):
    scores = SCORES.astype(dtype)
    scores[1] = -np.inf
    rng = generator()
    drawn = {sample_id(scores, rng) for _ in range(500)}
    assert drawn == {0, 2, 3, 4}


def test_scores_are_left_alone_whatever_is_cut():
    scores = SCORES.copy()
    sample_id(scores, generator(), 0.5, 2, 0.5)
    assert scores.tolist() == SCORES.tolist()


@both_ways
@pytest.mark.parametrize("temperature", [1e-6, 1e-45, 5e-324])
def test_huge_scores_and_small_temperatures_are_no_trouble(temperature, dtype):
    scores = np.array([-1e4, 1e4, 0], dtype=dtype)
    assert sample_id(scores, generator(), temperature=temperature) == 1


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


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-50}])
def test_the_likeliest_is_that_of_the_highest_score_where_all_weights_round_to_one(settings):
    scores = np.linspace(0, 1e-5, 50, dtype="float32")[np.random.default_rng(0).permutation(50)]
    chosen = sample_id(scores, np.random.default_rng(1), temperature=1e4, **settings)
    assert chosen == scores.argmax()


@both_ways
@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"top_p": 0.5}])
@pytest.mark.parametrize("temperature", [1e-300, 1.0])
def test_scores_as_wide_as_float32_is_are_no_trouble(settings, temperature, dtype):
    scores = np.array([-3.4e38, 3.4e38, 0], dtype=dtype)
    assert sample_id(scores, generator(), temperature, **settings) == 1


def test_a_top_p_that_float32_cannot_hold_leaves_the_likeliest():
    scores = np.random.default_rng(0).normal(size=50).astype("float32")
    assert sample_id(scores, np.random.default_rng(1), top_p=1e-50) == scores.argmax()
