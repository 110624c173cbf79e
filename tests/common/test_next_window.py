"""Windows whose sizes are drawn: every column once, and an epoch that goes on where it stopped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.perplexity.protocols import windows
from common.trainer import next_window


def all_windows(length, time_size, seed, start=0, iteration=0, **chance):
    """The windows from ``start`` to the end, one after the other."""
    while start < length:
        window = next_window(length, time_size, start, seed, iteration, **chance)
        yield window
        start, iteration = window.stop, iteration + 1


@given(
    length=st.integers(0, 300),
    time_size=st.integers(1, 80),
    start=st.integers(0, 100),
    seed=st.integers(0, (1 << 64) - 1),
    random_offset=st.booleans(),
    random_sizes=st.booleans(),
)
def test_random_windows_cover_every_column_once_in_order(
    length, time_size, start, seed, random_offset, random_sizes
):
    options = {"random_offset": random_offset, "random_sizes": random_sizes}
    parts = list(all_windows(length, time_size, seed, start, **options))
    columns = np.arange(length)
    seen = np.concatenate([np.arange(0), *(columns[part] for part in parts)])
    np.testing.assert_array_equal(seen, columns[start:])
    sizes = [part.stop - part.start for part in parts]
    assert all(1 <= size <= min(time_size + 20, 2 * time_size) for size in sizes)
    inner = sizes[1:-1] if random_offset else sizes[:-1]
    assert all(size >= min(5, time_size) for size in inner)


def test_without_chance_windows_are_the_plain_windows():
    assert list(all_windows(23, 5, seed=0)) == list(windows(23, 5))


@pytest.mark.parametrize("random_sizes", [False, True])
def test_a_random_offset_moves_the_edges_of_an_epoch_by_up_to_one_window(random_sizes):
    options = {"random_offset": True, "random_sizes": random_sizes}
    starts = set()
    for seed in range(200):
        first, *rest = all_windows(50, 8, seed, **options)
        starts.add(first.stop)
        same_size = all(part.stop - part.start == 8 for part in rest[:-1])
        assert same_size or random_sizes
    assert starts == set(range(1, 9))


def test_random_sizes_have_the_distribution_of_the_paper():
    sizes = [next_window(10**6, 70, 9, 1, k, random_sizes=True) for k in range(20_000)]
    sizes = np.array([part.stop - part.start for part in sizes])
    around_half = sizes < 53
    assert around_half.mean() == pytest.approx(0.05, abs=0.005)
    # A size is cut to a whole number: half a step less on average.
    assert sizes[~around_half].mean() == pytest.approx(69.5, abs=0.2)
    assert sizes[around_half].mean() == pytest.approx(34.5, abs=0.7)
    assert sizes[~around_half].std() == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("stopped_after", [0, 1, 4])
def test_an_epoch_goes_on_from_its_place_and_its_iteration_as_if_never_stopped(stopped_after):
    options = {"random_offset": True, "random_sizes": True}
    whole = list(all_windows(300, 20, seed=3, **options))
    begun = whole[:stopped_after]
    place = begun[-1].stop if begun else 0
    assert begun + list(all_windows(300, 20, 3, place, stopped_after, **options)) == whole
    assert list(all_windows(300, 20, seed=4, **options)) != whole


@pytest.mark.parametrize(
    ("length", "time_size", "start", "message"),
    [
        (10, 0, 0, "expected time_size of 1 or more, got 0"),
        (10, 5, 10, r"expected a start in 0\.\.9, got 10"),
        (10, 5, -1, r"expected a start in 0\.\.9, got -1"),
    ],
)
def test_a_window_that_cannot_be_is_refused(length, time_size, start, message):
    with pytest.raises(ValueError, match=f"^next_window: {message}"):
        next_window(length, time_size, start, seed=0, iteration=0)
