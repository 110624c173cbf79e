"""Windows of random size, so that the gradient does not stop at the same tokens in every epoch."""

from __future__ import annotations

import statistics

from common.kernels.philox import MAX, SHARED, random_words

__all__ = ["random_size"]

HALVED = 0.05  # how often a random window has T / 2 for its mean
SPREAD = 5.0  # standard deviation of a random size, in steps
SMALLEST = 5  # least steps of a random window, unless T is smaller or the corpus ends
LARGEST_EXCESS = 20  # steps beyond T at most, which bounds the memory of a window
WINDOWS = MAX  # the layer number under which random windows are drawn; no layer has it


def random_size(
    T: int,
    start: int,
    seed: int,
    iteration: int,
    random_offset: bool,
    random_sizes: bool,
) -> int:
    """Steps of the window that begins at column ``start``.

    With ``random_offset`` the first window of an epoch has 1 .. T steps, all equally likely.
    With ``random_sizes`` the size is normal with a standard deviation of 5 around T, or with a
    probability of 0.05 around T / 2; at least 5 (T, if that is less), at most T + 20 or 2 T,
    whichever is less. Merity et al. (2018), section 5.
    """
    words = random_words(seed, WINDOWS, iteration, SHARED, 2)
    first, second = ((int(word) + 0.5) / (MAX + 1) for word in words)  # above 0 and below 1
    if random_offset and start == 0:
        return 1 + int(T * first)
    if not random_sizes:
        return T
    mean = T / 2 if first < HALVED else T
    smallest, largest = min(SMALLEST, T), min(T + LARGEST_EXCESS, 2 * T)
    size = int(statistics.NormalDist(mean, SPREAD).inv_cdf(second))
    return min(max(size, smallest), largest)
