"""A corpus cut into streams and windows: every token once, in order, without a copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.trainer import next_window, random_windows, streams, windows


def test_the_picture_above_the_code():
    corpus = np.array(list("abcdefghijklmn"))
    rows = streams(corpus, 3)
    assert ["".join(row) for row in rows] == ["abcd", "efgh", "ijkl"]
    first, second = (rows[:, part] for part in windows(4, 2))
    assert ["".join(row) for row in first] == ["ab", "ef", "ij"]
    assert ["".join(row) for row in second] == ["cd", "gh", "kl"]


@given(
    length=st.integers(1, 300),
    batch_size=st.integers(1, 12),
    time_size=st.integers(1, 40),
    step=st.integers(1, 3),
)
def test_every_token_that_fits_is_seen_exactly_once_in_order_and_never_copied(
    length, batch_size, time_size, step
):
    corpus = np.arange(length * step)[::step]
    if length < batch_size:
        with pytest.raises(ValueError):
            streams(corpus, batch_size)
        return
    rows = streams(corpus, batch_size)
    parts = [rows[:, part] for part in windows(rows.shape[1], time_size)]
    assert all(np.shares_memory(part, corpus) for part in parts)
    assert all(part.shape == (batch_size, time_size) for part in parts[:-1])
    assert 1 <= parts[-1].shape[1] <= time_size
    seen = np.concatenate(parts, axis=1).reshape(-1)
    np.testing.assert_array_equal(seen, corpus[: length // batch_size * batch_size])
    assert length - len(seen) < batch_size


@given(length=st.integers(0, 100), time_size=st.integers(1, 12), start=st.integers(0, 100))
def test_windows_from_a_later_start_cover_the_rest_once(length, time_size, start):
    columns = np.arange(length)
    parts = [columns[part] for part in windows(length, time_size, start)]
    seen = np.concatenate([np.arange(0), *parts])
    np.testing.assert_array_equal(seen, columns[start:])


def test_streams_take_a_list():
    assert streams([1, 2, 3, 4, 5], 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("corpus", "batch_size", "message"),
    [
        ([], 1, "a corpus of 0 tokens is too short for a batch of 1"),
        ([1, 2], 3, "a corpus of 2 tokens is too short for a batch of 3"),
        ([1, 2], 0, "expected a batch size of 1 or more, got 0"),
        ([1, 2], -1, "expected a batch size of 1 or more, got -1"),
        ([[1, 2]], 1, r"expected a corpus of shape \(length,\), got \(1, 2\)"),
    ],
)
def test_a_corpus_that_makes_no_streams_is_an_error_that_names_who_asked(
    corpus, batch_size, message
):
    with pytest.raises(ValueError, match=f"^somebody: {message}"):
        streams(np.array(corpus), batch_size, "somebody")


@pytest.mark.parametrize("time_size", [0, -1])
def test_a_window_has_at_least_one_step(time_size):
    with pytest.raises(ValueError, match=f"expected a time size of 1 or more, got {time_size}"):
        list(windows(10, time_size))


class TestRandomWindows:
    @given(
        length=st.integers(0, 300),
        time_size=st.integers(1, 80),
        start=st.integers(0, 100),
        seed=st.integers(0, 1000),
        random_offset=st.booleans(),
        random_sizes=st.booleans(),
    )
    def test_they_cover_every_column_once_in_order(
        self, length, time_size, start, seed, random_offset, random_sizes
    ):
        options = {"random_offset": random_offset, "random_sizes": random_sizes}
        rng = np.random.default_rng(seed)
        parts = list(random_windows(length, time_size, rng, start, **options))
        columns = np.arange(length)
        seen = np.concatenate([np.arange(0), *(columns[part] for part in parts)])
        np.testing.assert_array_equal(seen, columns[start:])
        sizes = [part.stop - part.start for part in parts]
        assert all(1 <= size <= min(time_size + 20, 2 * time_size) for size in sizes)
        inner = sizes[1:-1] if random_offset else sizes[:-1]
        assert all(size >= min(5, time_size) for size in inner)

    def test_without_chance_they_are_the_plain_windows_and_draw_nothing(self):
        rng = np.random.default_rng(0)
        before = rng.bit_generator.state
        assert list(random_windows(23, 5, rng)) == list(windows(23, 5))
        assert rng.bit_generator.state == before

    @pytest.mark.parametrize("random_sizes", [False, True])
    def test_a_random_offset_moves_the_edges_of_an_epoch_by_up_to_one_window(self, random_sizes):
        rng = np.random.default_rng(0)
        starts = set()
        for _ in range(200):
            first, *rest = random_windows(50, 8, rng, random_offset=True, random_sizes=random_sizes)
            starts.add(first.stop)
            same_size = all(part.stop - part.start == 8 for part in rest[:-1])
            assert same_size or random_sizes
        assert starts == set(range(1, 9))

    def test_random_sizes_have_the_distribution_of_the_paper(self):
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
    def test_an_epoch_goes_on_from_its_place_and_the_generator_as_if_never_stopped(
        self, stopped_after
    ):
        options = {"random_offset": True, "random_sizes": True}
        whole = list(random_windows(300, 20, np.random.default_rng(3), **options))
        rng, begun = np.random.default_rng(3), []
        for part in random_windows(300, 20, rng, **options):
            if len(begun) == stopped_after:
                break
            begun.append(part)
            state = rng.bit_generator.state
        again = np.random.default_rng(99)
        again.bit_generator.state = state if begun else np.random.default_rng(3).bit_generator.state
        place = begun[-1].stop if begun else 0
        assert begun + list(random_windows(300, 20, again, place, **options)) == whole

    @pytest.mark.parametrize(
        ("length", "time_size", "start", "message"),
        [
            (10, 0, 0, "expected a time size of 1 or more, got 0"),
            (10, 5, 10, r"expected a start in 0\.\.9, got 10"),
            (10, 5, -1, r"expected a start in 0\.\.9, got -1"),
        ],
    )
    def test_a_window_that_cannot_be_is_refused(self, length, time_size, start, message):
        with pytest.raises(ValueError, match=f"^next_window: {message}"):
            next_window(length, time_size, start, np.random.default_rng(0))
