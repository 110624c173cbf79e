"""Words by frequency, and where clusters of rarer ones begin."""

import itertools

import numpy as np
import pytest

from common.time_layers.clusters import WordClusters, default_cutoffs
from tests.builders import generator, same


def test_the_most_frequent_words_are_in_the_head_and_places_count_from_the_edge_of_a_cluster():
    clusters = WordClusters(6, (2, 5))
    clusters.set_counts(np.array([3, 10, 0, 7, 3, 8]))  # in order: 1, 5, 3, 0, 4, 2
    same(clusters.ranks, np.array([3, 0, 5, 2, 4, 1], dtype="int32"))
    numbers, places = clusters.places(np.array([1, 5, 3, 0, 4, 2]))
    assert numbers.tolist() == [0, 0, 1, 1, 1, 2]
    assert places.tolist() == [0, 1, 0, 1, 2, 0]
    assert (clusters.sizes, clusters.head_size, clusters.num_tails) == ([2, 3, 1], 4, 2)


def test_words_of_one_count_keep_the_order_of_their_ids():
    clusters = WordClusters(5, (2,))
    before = clusters.ranks
    clusters.set_counts(np.array([1, 2, 2, 1, 2]))
    same(clusters.ranks, np.array([3, 0, 1, 4, 2], dtype="int32"))
    assert clusters.ranks is before  # who holds the array sees the order


def test_each_cluster_has_a_fourth_of_the_width_of_the_one_before_but_never_none():
    assert WordClusters(100, (10, 20, 30, 40, 50)).widths(512) == [512, 128, 32, 8, 2, 1]
    assert WordClusters(100, (10, 20)).widths(512, div_value=2.0) == [512, 256, 128]


@pytest.mark.parametrize(
    ("cutoffs", "got"),
    [((), "none"), ((0, 3), "0, 3"), ((3, 3), "3, 3"), ((4, 2), "4, 2"), ((3, 7), "3, 7")],
)
def test_cutoffs_that_make_no_clusters_are_refused(cutoffs, got):
    with pytest.raises(ValueError, match=rf"cutoffs in ascending order in 1\.\.6, got {got}$"):
        WordClusters(7, cutoffs)


def test_a_single_word_has_no_clusters():
    for make in (lambda: WordClusters(1, (1,)), lambda: default_cutoffs(np.array([9]))):
        with pytest.raises(ValueError, match="vocab_size of 2 or more, got 1"):
            make()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones(6), r"expected counts of shape \(7,\), got \(6,\)"),
        (np.arange(7) - 1, "expected finite counts of 0 or more, got -1 to 5"),
        (np.full(7, np.nan), "expected finite counts"),
    ],
)
def test_counts_that_are_none_are_refused(counts, message):
    with pytest.raises(ValueError, match=rf"^WordClusters\.set_counts: {message}"):
        WordClusters(7, (3,)).set_counts(counts)


class TestDefaultCutoffs:
    def zipf(self, V, power=1.1):
        """Counts in a drawn order of ids."""
        counts = (1e9 / np.arange(1, V + 1) ** power).astype(int)
        generator().shuffle(counts)
        return counts

    def cost(self, counts, cutoffs):
        """Words of each cluster behind the head, as often as it is read and as narrow as it is."""
        share = np.sort(counts)[::-1] / counts.sum()
        edges = [*cutoffs, len(counts)]
        return sum(
            share[a:b].sum() * (b - a) / 4.0 ** (k + 1)
            for k, (a, b) in enumerate(itertools.pairwise(edges))
        )

    @pytest.mark.parametrize("V", [50, 10_000, 100_000])
    def test_the_head_has_the_fewest_words_with_four_fifths_of_the_text(self, V):
        counts = self.zipf(V)
        head = default_cutoffs(counts)[0]
        reached = np.sort(counts)[::-1].cumsum() / counts.sum()
        assert reached[head - 1] >= 0.8 > reached[head - 2]

    @pytest.mark.parametrize("power", [0.6, 1.0, 1.5])
    def test_no_other_cut_behind_it_costs_much_less(self, power):
        counts = self.zipf(200, power)
        head, *_ = cutoffs = default_cutoffs(counts)
        others = [(head,), *((head, cut) for cut in range(head + 1, 200))]
        assert self.cost(counts, cutoffs) < 1.02 * min(self.cost(counts, each) for each in others)

    def test_of_a_large_vocabulary_the_cost_is_a_fraction(self):
        counts = self.zipf(100_000)
        cutoffs = default_cutoffs(counts)
        assert len(cutoffs) == 2
        assert cutoffs[0] + self.cost(counts, cutoffs) < 0.15 * 100_000

    @pytest.mark.parametrize("V", [2, 3, 4])
    def test_few_words_have_cutoffs_too(self, V):
        for counts in (np.arange(V), np.zeros(V, dtype=int), np.ones(V)):
            WordClusters(V, default_cutoffs(counts))
