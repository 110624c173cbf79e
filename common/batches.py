"""A corpus as N parallel streams, cut into windows of T steps.

    corpus  a b c d e f g h i j k l m n      N = 3, four tokens each; m and n are left out

    stream 0   a b c d                       window 0      window 1      with T = 2
    stream 1   e f g h                         a b           c d
    stream 2   i j k l                         e f           g h
                                               i j           k l

Window k + 1 goes on where window k stopped, stream by stream: that is what lets a recurrent layer
carry its state. The streams are a view of the corpus; nothing is copied, and a last window
that is shorter than T is not dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.np import Array, np

__all__ = ["streams", "windows"]


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
