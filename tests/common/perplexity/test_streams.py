"""A corpus cut into streams and windows: every token once, in order, without a copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.perplexity.protocols import streams, windows


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


def test_streams_without_columns_have_no_windows():
    assert list(windows(0, 5)) == []


def test_streams_take_a_list():
    assert streams([1, 2, 3, 4, 5], 2).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("corpus", "batch_size", "message"),
    [
        ([], 1, "a corpus of 0 tokens is too short for a batch of 1"),
        ([1, 2], 3, "a corpus of 2 tokens is too short for a batch of 3"),
        ([1, 2], 0, "expected batch_size of 1 or more, got 0"),
        ([1, 2], -1, "expected batch_size of 1 or more, got -1"),
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
    with pytest.raises(ValueError, match=f"expected time_size of 1 or more, got {time_size}"):
        list(windows(10, time_size))
