"""A corpus as N parallel streams, cut into windows of T steps.

    corpus  a b c d e f g h i j k l m n      N = 3, four tokens each; m and n are left out

    stream 0   a b c d                       window 0      window 1      with T = 2
    stream 1   e f g h                         a b           c d
    stream 2   i j k l                         e f           g h
                                               i j           k l

Window k + 1 goes on where window k stopped, stream by stream: that is what lets a recurrent layer
carry its state. The streams are a view of the corpus; nothing is copied, and a last window
that is shorter than T is not dropped.

With fixed windows the gradient stops at the same tokens in every epoch. ``next_window`` moves those
edges: the first window of an epoch, or all of them, have random sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from common.np import Array, np

__all__ = ["next_window", "random_windows", "streams", "windows"]

HALVED = 0.05  # how often a random window has T / 2 for its mean
SPREAD = 5.0  # standard deviation of a random size, in steps
SMALLEST = 5  # steps of a random window, if T and the corpus have so many
LARGEST_EXCESS = 20  # steps beyond T at most, which bounds the memory of a window


def streams(tokens: Array, batch_size: int, who: str = "streams") -> Array:
    """View (N, length) of ``tokens``; the remainder of the division by N is left out.

    Raises:
        ValueError: where a stream would be empty, or ``tokens`` is not one-dimensional.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1:
        raise ValueError(f"{who}: expected a corpus of shape (length,), got {tokens.shape}")
    if batch_size < 1:
        raise ValueError(f"{who}: expected a batch size of 1 or more, got {batch_size}")
    length = len(tokens) // batch_size
    if length == 0:
        raise ValueError(
            f"{who}: a corpus of {len(tokens)} tokens is too short for a batch of {batch_size}"
        )
    return tokens[: batch_size * length].reshape(batch_size, length)


def windows(length: int, time_size: int, start: int = 0) -> Iterator[slice]:
    """Slices of at most ``time_size`` columns that cover ``start`` .. ``length`` once.

    Raises:
        ValueError: for a ``time_size`` below 1.
    """
    if time_size < 1:
        raise ValueError(f"windows: expected a time size of 1 or more, got {time_size}")
    return (
        slice(begin, min(begin + time_size, length)) for begin in range(start, length, time_size)
    )


def next_window(
    length: int,
    time_size: int,
    start: int,
    rng: numpy.random.Generator,
    *,
    random_offset: bool = False,
    random_sizes: bool = False,
) -> slice:
    """The window that begins at column ``start``; its size may be drawn.

    One window is drawn at a time and nothing else is remembered: ``start`` and the state of ``rng``
    are all that a run needs to go on in mid-epoch as if it had never stopped.

    A window of S steps has a loss that is a mean over its steps, so that a token of a short window
    would count for more: where sizes are random, update with lr * S / T (Merity et al. 2018,
    section 5).

    Args:
        length: columns of the streams.
        time_size: T, the size without chance.
        start: where the window begins, in 0 .. ``length`` - 1.
        rng: what the size is drawn from; left alone where nothing is drawn.
        random_offset: a window at column 0 has 1 .. T steps, all equally likely, so that the edges
            lie elsewhere in each epoch.
        random_sizes: the size is normal with a standard deviation of 5 around T, or with a
            probability of 0.05 around T / 2; at least 5 (T, if that is less), at most T + 20 or
            2 T, whichever is less. Merity et al. (2018), section 5.

    Raises:
        ValueError: for a ``time_size`` below 1 or a ``start`` outside the streams.
    """
    if time_size < 1:
        raise ValueError(f"next_window: expected a time size of 1 or more, got {time_size}")
    if not 0 <= start < length:
        raise ValueError(f"next_window: expected a start in 0..{length - 1}, got {start}")
    size = time_size
    if random_offset and start == 0:
        size = int(rng.integers(1, time_size + 1))
    elif random_sizes:
        mean = time_size / 2 if rng.random() < HALVED else time_size
        smallest = min(SMALLEST, time_size)
        largest = min(time_size + LARGEST_EXCESS, 2 * time_size)
        size = min(max(int(rng.normal(mean, SPREAD)), smallest), largest)
    return slice(start, min(start + size, length))


def random_windows(
    length: int,
    time_size: int,
    rng: numpy.random.Generator,
    start: int = 0,
    *,
    random_offset: bool = False,
    random_sizes: bool = False,
) -> Iterator[slice]:
    """What ``next_window`` gives from ``start`` on, until every column has been covered once.

    Each window is drawn when it is asked for. The arguments are those of ``next_window``.
    """
    while start < length:
        window = next_window(
            length,
            time_size,
            start,
            rng,
            random_offset=random_offset,
            random_sizes=random_sizes,
        )
        yield window
        start = window.stop
