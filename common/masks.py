"""What a layer drops: masks that depend on the seed, the layer, the pass and the stream alone.

Another layer, another batch size, another device or process changes no mask. The bits come from
``common.kernels.philox`` and are drawn where they are used; every device has the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from common.base_layer import seed_of
from common.kernels.philox import SHARED, keep, random_words, threshold_of
from common.np import Array

__all__ = ["Masks"]


class Masks:
    """The masks of one layer, new ones for every training pass.

    Layers that are given one generator have one seed and are numbered in the order in which they
    are made. A model numbers its own anew: 0, 1, ... from its input to its loss
    (``BaseModel.compose``). To repeat a pass, set ``passes`` back.

    A ratio is rounded to 16 bits (``threshold_of``); the scale is that of the rounded ratio.

    Args:
        rng: gives the seed and the number without drawing: initial weights that are drawn from it
            are the same with and without masks. A generator or a seed; a fresh generator if None.

    Attributes:
        seed: 64 bits, the same for all layers of a model.
        layer: the layer's number.
        passes: training passes so far.
        first_stream: the stream of the first sequence of a batch; above 0 where other processes
            have those before it.

    Shapes: N batch, T time steps, D width.
    """

    def __init__(self, rng: numpy.random.Generator | int | None = None) -> None:
        rng = numpy.random.default_rng(rng)
        seeds: Any = rng.bit_generator.seed_seq
        self.seed = seed_of(rng)
        self.layer: int = seeds.spawn(1)[0].spawn_key[-1]  # how many came before
        self.passes = 0
        self.first_stream = 0

    def of_streams(self, ratio: float, N: int, T: int, D: int) -> tuple[Array, float]:
        """The mask of the next pass, in which each of N sequences is a stream of its own.

        Args:
            ratio: probability of dropping, in [0, 1).
            N: how many streams.
            T: steps.
            D: width.

        Returns:
            Which elements stay (N, T, D), in memory time first, and the scale of those that do.
        """
        place = self.seed, self.layer, self._next_pass(), self.first_stream
        return keep(ratio, (N, T, D), *place), _scale(ratio)

    def shared(self, ratio: float, *shapes: tuple[int, ...]) -> tuple[list[Array], float]:
        """The masks of the next pass for arrays that all sequences share.

        Args:
            ratio: probability of dropping, in [0, 1).
            shapes: of the arrays.

        Returns:
            For each of them which elements stay, and the scale of those that do.
        """
        place = self.seed, self.layer, self._next_pass()
        sizes = [(1, 1, math.prod(shape)) for shape in shapes]
        masks = [keep(ratio, size, *place, SHARED + k) for k, size in enumerate(sizes)]
        return [m.reshape(s) for m, s in zip(masks, shapes, strict=True)], _scale(ratio)

    def drawn(self, probabilities: numpy.ndarray) -> numpy.ndarray:
        """Which of several are drawn in the next pass, each with its own probability.

        Args:
            probabilities: in [0, 1], (V,); rounded to 32 bits.

        Returns:
            Their indices in ascending order, on the host.
        """
        place = self.seed, self.layer, self._next_pass()
        words = random_words(*place, SHARED, len(probabilities))
        return numpy.flatnonzero((words + 0.5) * 2.0**-32 < probabilities)

    def _next_pass(self) -> int:
        self.passes += 1
        return self.passes - 1


def _scale(ratio: float) -> float:
    threshold, bits = threshold_of(ratio)
    return 1 / (1 - threshold / 2**bits)
