"""Windows whose sizes are drawn: every column once, and an epoch that goes on where it stopped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.perplexity.protocols import windows
from common.trainer import next_window


def all_windows(length, time_size, rng, start=0, **chance):
    """The windows from ``start`` to the end, one after the other."""
    while start < length:
        window = next_window(length, time_size, start, rng, **chance)
        yield window
        start = window.stop


@given(
    length=st.integers(0, 300),
    time_size=st.integers(1, 80),
    start=st.integers(0, 100),
    seed=st.integers(0, 1000),
    random_offset=st.booleans(),
    random_sizes=st.booleans(),
)
def test_random_windows_cover_every_column_once_in_order(
    length, time_size, start, seed, random_offset, random_sizes
):
    options = {"random_offset": random_offset, "random_sizes": random_sizes}
    rng = np.random.default_rng(seed)
    parts = list(all_windows(length, time_size, rng, start, **options))
    columns = np.arange(length)
    seen = np.concatenate([np.arange(0), *(columns[part] for part in parts)])
    np.testing.assert_array_equal(seen, columns[start:])
    sizes = [part.stop - part.start for part in parts]
    assert all(1 <= size <= min(time_size + 20, 2 * time_size) for size in sizes)
    inner = sizes[1:-1] if random_offset else sizes[:-1]
    assert all(size >= min(5, time_size) for size in inner)


def test_without_chance_windows_are_the_plain_windows_and_draw_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert list(all_windows(23, 5, rng)) == list(windows(23, 5))
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("random_sizes", [False, True])
def test_a_random_offset_moves_the_edges_of_an_epoch_by_up_to_one_window(random_sizes):
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(200):
        first, *rest = all_windows(50, 8, rng, random_offset=True, random_sizes=random_sizes)
        starts.add(first.stop)
        same_size = all(part.stop - part.start == 8 for part in rest[:-1])
        assert same_size or random_sizes
    assert starts == set(range(1, 9))


def test_random_sizes_have_the_distribution_of_the_paper():
    rng = np.random.default_rng(0)
    sizes = [next_window(10**6, 70, 9, rng, random_sizes=True) for _ in range(20_000)]
    sizes = np.array([part.stop - part.start for part in sizes])
    around_half = sizes < 53
    assert around_half.mean() == pytest.approx(0.05, abs=0.005)
    # A size is cut to a whole number: half a step less on average.
    assert sizes[~around_half].mean() == pytest.approx(69.5, abs=0.2)
    assert sizes[around_half].mean() == pytest.approx(34.5, abs=0.7)
    assert sizes[~around_half].std() == pytest.approx(5, abs=0.2)


@pytest.mark.parametrize("stopped_after", [0, 1, 4])
def test_an_epoch_goes_on_from_its_place_and_the_generator_as_if_never_stopped(stopped_after):
    options = {"random_offset": True, "random_sizes": True}
    whole = list(all_windows(300, 20, np.random.default_rng(3), **options))
    rng, begun = np.random.default_rng(3), []
    for part in all_windows(300, 20, rng, **options):
        if len(begun) == stopped_after:
            break
        begun.append(part)
        state = rng.bit_generator.state
    again = np.random.default_rng(99)
    again.bit_generator.state = state if begun else np.random.default_rng(3).bit_generator.state
    place = begun[-1].stop if begun else 0
    assert begun + list(all_windows(300, 20, again, place, **options)) == whole


@pytest.mark.parametrize(
    ("length", "time_size", "start", "message"),
    [
        (10, 0, 0, "expected a time size of 1 or more, got 0"),
        (10, 5, 10, r"expected a start in 0\.\.9, got 10"),
        (10, 5, -1, r"expected a start in 0\.\.9, got -1"),
    ],
)
def test_a_window_that_cannot_be_is_refused(length, time_size, start, message):
    with pytest.raises(ValueError, match=f"^next_window: {message}"):
        next_window(length, time_size, start, np.random.default_rng(0))
