"""What is measured is what the sizes say, and every side reads the same text."""

from itertools import pairwise

import numpy as np
import pytest

from tests.train.benchmark.small_models import some_ids
from train.benchmark.workloads import TIMED, Sizes, matrix_peak, training_chunk


class TestFloor:
    def test_operations_of_a_small_step_counted_by_hand(self):
        sizes = Sizes(N=2, T=3, D=5, H=7, V=11)
        forward = (
            6 * 5 * 28  # x Wx: 6 rows, D = 5, 4 H = 28
            + 6 * 7 * 28  # h Wh
            + 6 * 7 * 11  # output
        )
        assert sizes.step_flops == 3 * 2 * forward == 14_868

    def test_the_second_layer_reads_what_the_first_one_wrote_and_a_gru_has_three_gates(self):
        sizes = Sizes("BetterRnnlm", "GRU", N=1, T=1, D=2, H=2, V=3)
        assert sizes.step_flops == 6 * (2 * (2 + 2) * 6 + 2 * 3)

    def test_operations_of_the_two_models_of_the_table(self):
        assert TIMED[0].sizes.step_flops == 4_536_000_000
        assert TIMED[1].sizes.step_flops == 55_692_000_000

    def test_the_peak_is_that_of_the_fastest_product(self, monkeypatch):
        times = iter([0.0, 4.0, 4.0, 5.0, *range(10, 34, 2)])  # the second takes one second
        monkeypatch.setattr("train.benchmark.workloads.PRODUCTS", ((2, 3, 5),))
        peak = matrix_peak(lambda M, K, N: lambda: None, timer=lambda: next(times))
        assert peak == 2 * 2 * 3 * 5


class TestIds:
    def test_a_larger_vocabulary_is_used_from_end_to_end(self):
        ids = some_ids(10).stretched(1000)
        assert (ids.vocab_size, ids.first_id) == (1000, 300)
        assert ids.train.dtype == np.int32
        assert set(ids.train) == set(range(0, 1000, 100))

    def test_chunks_follow_each_other_and_share_the_token_between(self):
        chunks = [training_chunk(np.arange(50), k, 10) for k in range(4)]
        assert [len(chunk) for chunk in chunks] == [11] * 4
        assert all(a[-1] == b[0] for a, b in pairwise(chunks))
        with pytest.raises(ValueError, match="more than 50 ids, got 50"):
            training_chunk(np.arange(50), 0, 50)
