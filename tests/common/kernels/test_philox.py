"""Random bits by place: the published answers, NumPy and C alike, whoever asks and when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import kernels
from common.kernels import philox
from common.kernels.philox import MAX, SHARED, keep, random_words, threshold_of

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="there are no kernels here")

# counter, key and answer: philox4x32 with 10 rounds in the file kat_vectors of Random123
KNOWN = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([MAX] * 4, [MAX] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
PLACE = {"seed": 0xFEDCBA9876543210, "layer": 3, "iteration": 7, "first_stream": 2}


@pytest.fixture(params=["compiled", "numpy"])
def form(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "library", lambda *arrays: None)
    elif kernels.library() is None:
        pytest.skip("there are no kernels here")


def by_numpy(function, *arguments, **options):
    with pytest.MonkeyPatch.context() as context:
        context.setattr(kernels, "library", lambda *arrays: None)
        return function(*arguments, **options)


def hexadecimal(words):
    return " ".join(f"{word:08x}" for word in words.tolist())


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_published_answers_come_out(form, counter, key, answer):
    block, stream, iteration, layer = counter
    seed = key[0] | key[1] << 32
    assert hexadecimal(random_words(seed, layer, iteration, stream, 4, block)) == answer


def test_a_block_carries_on_from_the_one_before_it(form):
    words = random_words(5, 1, 2, 3, 1000)
    assert len(words) == 1000 and len(np.unique(words)) == 1000
    for first in (1, 63, 64, 65, 200):
        np.testing.assert_array_equal(
            random_words(5, 1, 2, 3, 13, first), words[4 * first : 4 * first + 13]
        )


@needs_kernels
@given(
    N=st.integers(0, 5),
    T=st.integers(0, 40),
    D=st.integers(0, 300),
    ratio=st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(0, 1, exclude_max=True)),
    seed=st.integers(0, (1 << 64) - 1),
    place=st.tuples(st.integers(0, MAX), st.integers(0, 1 << 40), st.integers(0, SHARED)),
)
def test_kernels_and_numpy_draw_the_same_bits(N, T, D, ratio, seed, place):
    compiled = keep(ratio, (N, T, D), seed, *place)
    assert compiled.shape == (N, T, D)
    np.testing.assert_array_equal(compiled, by_numpy(keep, ratio, (N, T, D), seed, *place))


@needs_kernels
@pytest.mark.parametrize("ratio", [0.5, 0.4])
@pytest.mark.parametrize("shape", [(1, 1, 3_000_001), (7, 300, 650)])
def test_no_number_of_threads_changes_a_bit(shape, ratio, monkeypatch):
    expected = by_numpy(keep, ratio, shape, **PLACE)
    monkeypatch.setattr(philox, "SMALL", 0)
    for threads in (1, 2, 5):
        monkeypatch.setattr(kernels, "num_threads", lambda threads=threads: threads)
        np.testing.assert_array_equal(keep(ratio, shape, **PLACE), expected)


@pytest.mark.parametrize("ratio", [0.5, 0.4])
def test_the_draws_are_the_words_cut_from_their_lowest_bits_on_row_by_row(form, ratio):
    N, T, D = 3, 5, 37
    threshold, bits = threshold_of(ratio)
    kept = keep(ratio, (N, T, D), **PLACE)
    for n in range(N):
        words = random_words(PLACE["seed"], 3, 7, 2 + n, T * D)
        draws = [
            (word >> shift) % 2**bits for word in words.tolist() for shift in range(0, 32, bits)
        ]
        assert kept[n].reshape(-1).tolist() == [draw >= threshold for draw in draws[: T * D]]


@pytest.mark.parametrize("ratio", [0.5, 0.4])
def test_a_stream_has_the_same_mask_alone_among_others_and_in_a_longer_window(form, ratio):
    N, T, D = 6, 9, 50
    kept = keep(ratio, (N, T, D), 1, 2, 3)
    for n in range(N):
        np.testing.assert_array_equal(keep(ratio, (1, T, D), 1, 2, 3, n)[0], kept[n])
    np.testing.assert_array_equal(keep(ratio, (2, T, D), 1, 2, 3, 3), kept[3:5])
    np.testing.assert_array_equal(keep(ratio, (N, T + 4, D), 1, 2, 3)[:, :T], kept)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": PLACE["seed"] ^ 1},
        {"seed": PLACE["seed"] ^ 1 << 63},
        {"layer": 4},
        {"iteration": 8},
        {"first_stream": 3},
    ],
)
def test_another_seed_layer_iteration_or_stream_has_another_mask(form, other):
    shape, variance = (1, 40, 250), 0.25
    masks = [keep(0.5, shape, **PLACE), keep(0.5, shape, **PLACE | other)]
    equal = (masks[0] == masks[1]).mean()  # by chance, one in two
    assert abs(equal - 0.5) < 5 * (variance / masks[0].size) ** 0.5


def test_an_iteration_beyond_32_bits_begins_again(form):
    np.testing.assert_array_equal(random_words(1, 2, 1 << 32, 3, 8), random_words(1, 2, 0, 3, 8))


@pytest.mark.parametrize("ratio", [0.0, 1 / 256, 0.1, 0.25, 0.4, 0.5, 0.65, 0.999])
def test_the_ratio_is_the_share_that_is_dropped(form, ratio):
    size = 400_000
    dropped = size - keep(ratio, (4, 100, size // 400), 11, 0, 0).sum()
    assert abs(dropped - size * ratio) <= 5 * (size * ratio * (1 - ratio)) ** 0.5


def test_over_many_iterations_each_element_is_dropped_as_often():
    rounds, ratio = 4000, 0.3
    dropped = sum(~keep(ratio, (2, 3, 5), 1, 0, k) for k in range(rounds))
    deviations = (dropped - rounds * ratio) / (rounds * ratio * (1 - ratio)) ** 0.5
    assert abs(deviations).max() < 5
    assert 0.4 < deviations.std() < 1.6  # as far from the mean as chance is, no nearer


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.0, (0, 8)),
        (0.5, (128, 8)),
        (255 / 256, (255, 8)),
        (0.4, (26214, 16)),
        (1e-9, (0, 16)),
        (0.9999999, (65535, 16)),
    ],
)
def test_a_multiple_of_a_256th_takes_8_bits_and_any_other_ratio_16(ratio, expected):
    assert threshold_of(ratio) == expected
