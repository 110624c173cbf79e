"""Random numbers as a function of where they are used, not of who asked before: Philox4x32-10.

A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") has no
state. It turns a counter of four 32-bit words and a key of two into four random words, a block:

    counter   block of the stream, stream, iteration, layer
    key       the seed, its low word first

The draws of a stream are its blocks one after the other, cut into 8, 16 or 32 bits, the lowest bits
of a word first. So a mask depends on its place alone: not on other layers, not on how many streams
are drawn or who draws them, not on threads, processes or devices.

Shapes: N streams, T time steps, D width.
"""

from __future__ import annotations

from typing import Any

import numpy

from common import config, kernels
from common.kernels import address, device
from common.np import Array, np

__all__ = ["MAX", "SHARED", "keep", "random_words", "threshold_of"]

ROUNDS = 10
MULTIPLIERS = numpy.array([0xD2511F53, 0xCD9E8D57], dtype=numpy.uint64)
WEYL = 0x9E3779B9, 0xBB67AE85  # what the words of the key grow by in each round
LOW = numpy.uint64(0xFFFFFFFF)
HALF = numpy.uint64(32)

MAX = (1 << 32) - 1  # of each word of a counter
SHARED = 1 << 31  # the first stream of what all streams share; those of a batch lie below

BATCH = 1 << 15  # blocks that NumPy computes at a time; their words fit into a core's cache
SMALL = 1 << 20  # draws, which one thread makes in a fifth of a millisecond


def _rounds(counter: list[Any], k0: Any, k1: Any) -> list[Array]:
    """The four random words of counters under one key, all in uint64, on either device.

    In each round, Salmon et al. (2011), section 3.2, with hi and lo the halves of a product:

        x0, x1, x2, x3  <-  hi(M1 x2) ^ x1 ^ k0,  lo(M1 x2),  hi(M0 x0) ^ x3 ^ k1,  lo(M0 x0)
    """
    x0, x1, x2, x3 = counter
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIERS[0] * x0, MULTIPLIERS[1] * x2
        x0, x1 = p1 >> HALF ^ x1 ^ k0, p1 & LOW
        x2, x3 = p0 >> HALF ^ x3 ^ k1, p0 & LOW
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return [x.astype(numpy.uint32) for x in (x0, x1, x2, x3)]


def _blocks(seed: int, layer: int, iteration: int, streams: Array, first: int, count: int) -> Array:
    """The words (N, count, 4) of ``count`` blocks of each stream, from its block ``first`` on.

    They are made where ``streams`` (N,) lie.
    """
    module: Any = numpy if isinstance(streams, numpy.ndarray) else np
    key = numpy.uint64(seed & MAX), numpy.uint64(seed >> 32)
    counter = [
        module.arange(first, first + count, dtype=numpy.uint64) & LOW,
        streams.astype(numpy.uint64)[:, None],
        numpy.uint64(iteration & MAX),
        numpy.uint64(layer),
    ]
    words = module.empty((len(streams), count, 4), dtype="<u4")
    for k, x in enumerate(_rounds(counter, *key)):
        words[..., k] = x
    return words


def random_words(
    seed: int, layer: int, iteration: int, stream: int, count: int, first_block: int = 0
) -> numpy.ndarray:
    """``count`` random words (count,) of 32 bits.

    Args:
        seed: 64 bits.
        layer: a number for whatever draws, 32 bits.
        iteration: how often it has drawn before; the lowest 32 bits count.
        stream: 32 bits.
        count: how many words.
        first_block: the block of the stream where they begin.
    """
    blocks = -(-count // 4)
    compiled = kernels.library()
    if compiled is None:
        words = _blocks(seed, layer, iteration, numpy.array([stream]), first_block, blocks)
        return words.reshape(-1)[:count].astype(numpy.uint32)
    words = numpy.empty(4 * blocks, dtype=numpy.uint32)
    compiled.philox_words(address(words), seed, layer, iteration, stream, first_block, blocks)
    return words[:count]


def threshold_of(ratio: float) -> tuple[int, int]:
    """The draws that drop with probability ``ratio``, those below a threshold, and their bits.

    A ratio that is a multiple of 1/256 takes 8 bits a draw. Any other is rounded to 16 bits, the
    nearest multiple of 1/65,536, but never to 1.

    Returns:
        threshold, bits: of every 2**bits values the threshold lowest drop.
    """
    if ratio * 256 == int(ratio * 256):
        return int(ratio * 256), 8
    return min(round(ratio * 65536), 65535), 16


def keep(
    ratio: float,
    shape: tuple[int, int, int],
    seed: int,
    layer: int,
    iteration: int,
    first_stream: int = 0,
) -> Array:
    """Which elements stay, each with probability 1 - ``ratio``, rounded as by :func:`threshold_of`.

    The draws are made on the device that ``np`` stands for, and are the same on all.

    Args:
        ratio: probability of dropping, in [0, 1).
        shape: (N, T, D); the draws of a stream follow its rows.
        seed: as for :func:`random_words`.
        layer: as there.
        iteration: as there.
        first_stream: the stream of row 0; the others follow.

    Returns:
        Booleans (N, T, D), in memory time first.
    """
    N, T, D = shape
    threshold, bits = threshold_of(ratio)
    if config.GPU:
        drawn = device.philox_keep(shape, threshold, bits, seed, layer, iteration, first_stream)
        if drawn is not None:
            return drawn.swapaxes(0, 1)
    kept = np.empty((T, N, D), dtype=bool)
    on_host = isinstance(kept, numpy.ndarray)
    compiled = kernels.library() if on_host else None
    if compiled is not None:
        threads = kernels.num_threads() if kept.size >= SMALL else 1
        place = seed, layer, iteration, first_stream
        compiled.philox_keep(
            address(kept), D, N * D, *place, N, T, D, threshold, bits // 8, threads
        )
        return kept.swapaxes(0, 1)
    blocks = -(-T * D * bits // 128)
    streams = np.arange(first_stream, first_stream + N)
    drawn = np.empty((N, blocks * 128 // bits), dtype=bool)
    at_once = max(1, BATCH // max(1, N)) if on_host else max(1, blocks)
    for first in range(0, blocks, at_once):
        words = _blocks(seed, layer, iteration, streams, first, min(at_once, blocks - first))
        draws = words.reshape(N, 4 * words.shape[1]).view(f"<u{bits // 8}")
        begin = first * 128 // bits
        drawn[:, begin : begin + draws.shape[1]] = draws >= threshold
    kept[...] = drawn[:, : T * D].reshape(N, T, D).swapaxes(0, 1)
    return kept.swapaxes(0, 1)
