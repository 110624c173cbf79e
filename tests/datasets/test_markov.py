import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import markov
from datasets.markov import MarkovSource

sources = st.builds(
    MarkovSource,
    num_symbols=st.integers(2, 5),
    order=st.integers(1, 3),
    seed=st.integers(0, 1000),
    concentration=st.sampled_from([0.01, 0.3, 1.0, 10.0]),
)


def negative_log_likelihood(source, ids):
    """-ln p(ids) in nats under the source, exactly."""
    K, order = source.num_symbols, source.order
    first, rest = ids[:order], ids[order:]
    p_first = source.stationary.reshape((K,) * order)[tuple(first)].sum()
    contexts = np.zeros_like(rest)
    for i in range(order):
        contexts = contexts * K + ids[i : i + len(rest)]
    return float(-np.log(p_first) - np.log(source.transition[contexts, rest]).sum())


def block_entropy(source, length):
    """Entropy in nats of a block of symbols, by adding up over every block there is."""
    blocks = product(range(source.num_symbols), repeat=length)
    nlls = [negative_log_likelihood(source, np.array(block, np.int32)) for block in blocks]
    assert sum(math.exp(-nll) for nll in nlls) == pytest.approx(1.0)
    return sum(math.exp(-nll) * nll for nll in nlls)


@settings(deadline=None)
@given(sources)
def test_rows_and_the_stationary_distribution_are_distributions(source):
    K, order = source.num_symbols, source.order
    assert source.transition.shape == (K**order, K)
    assert source.stationary.shape == (K**order,)
    assert source.transition.min() > 0
    assert source.stationary.min() > 0
    np.testing.assert_allclose(source.transition.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(source.stationary.sum(), 1.0, rtol=1e-12)
    assert 0 < source.entropy_rate < math.log(K)
    assert source.perplexity_floor == pytest.approx(math.exp(source.entropy_rate))


@pytest.mark.parametrize("seed", range(5))
def test_two_symbols_have_a_closed_form(seed):
    """For order 1: π = (b, a) / (a + b), where a and b are the chances to change symbol."""
    source = MarkovSource(num_symbols=2, order=1, seed=seed, concentration=1.0)
    a, b = source.transition[0, 1], source.transition[1, 0]

    def entropy(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    expected = (b * entropy(a) + a * entropy(b)) / (a + b)
    assert source.entropy_rate == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_entropy_rate_is_what_one_more_symbol_adds(order):
    """H = H(x_1..x_n+1) - H(x_1..x_n) for any n of at least the order: no eigenvectors here."""
    source = MarkovSource(num_symbols=3, order=order, seed=4)
    gain = block_entropy(source, order + 1) - block_entropy(source, order)
    assert source.entropy_rate == pytest.approx(gain, rel=1e-10)


def test_likelihood_by_hand():
    source = MarkovSource(num_symbols=3, order=2, seed=1)
    p, pi = source.transition, source.stationary
    #                     context (0, 1), then 2 after it, then 2 after (1, 2), 0 after (2, 2)
    expected = -math.log(pi[0 * 3 + 1] * p[0 * 3 + 1, 2] * p[1 * 3 + 2, 2] * p[2 * 3 + 2, 0])
    assert negative_log_likelihood(source, np.array([0, 1, 2, 2, 0])) == pytest.approx(expected)
    # Shorter than a context: the stationary distribution of its first symbol.
    assert negative_log_likelihood(source, np.array([2])) == pytest.approx(-math.log(pi[6:].sum()))
    assert negative_log_likelihood(source, np.array([], np.int32)) == pytest.approx(0.0)


@settings(deadline=None, max_examples=20)
@given(sources)
def test_a_sample_is_as_surprising_as_the_entropy_rate_says(source):
    length = 20_000
    ids = source.sample(length, np.random.default_rng(0))
    mean = negative_log_likelihood(source, ids) / length
    assert mean == pytest.approx(source.entropy_rate, abs=0.25)


def test_a_long_sample_converges():
    source = MarkovSource()
    ids = source.sample(200_000, np.random.default_rng(1))
    assert negative_log_likelihood(source, ids) / ids.size == pytest.approx(
        source.entropy_rate, abs=0.01
    )
    # Counted, not computed: how often each context occurs.
    counts = np.bincount(ids[:-1] * 8 + ids[1:], minlength=64) / (ids.size - 1)
    np.testing.assert_allclose(counts, source.stationary, atol=0.01)


def test_samples_follow_their_generator():
    source = MarkovSource(num_symbols=4, order=2)
    a, b = (source.sample(50, np.random.default_rng(3)) for _ in range(2))
    assert a.dtype == np.int32
    assert a.shape == (50,)
    np.testing.assert_array_equal(a, b)
    assert source.sample(0, np.random.default_rng(3)).shape == (0,)
    np.testing.assert_array_equal(source.sample(1, np.random.default_rng(3)), a[:1])
    with pytest.raises(ValueError, match="expected length of at least 0, got -1"):
        source.sample(-1, np.random.default_rng(3))


def test_the_seed_decides_the_transitions():
    same, other = MarkovSource(seed=0), MarkovSource(seed=1)
    np.testing.assert_array_equal(same.transition, MarkovSource(seed=0).transition)
    assert not np.array_equal(same.transition, other.transition)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_symbols": 1}, r"num_symbols in 2\.\.26, got 1"),
        ({"num_symbols": 27}, r"num_symbols in 2\.\.26, got 27"),
        ({"order": 0}, "order of at least 1 .*, got order 0"),
        ({"order": 5}, r"order .* at most 4096 contexts, got order 5, which makes 8\*\*5"),
        ({"seed": -1}, "seed of at least 0, got -1"),
        ({"concentration": 0.0}, r"a positive finite concentration, got 0\.0"),
        ({"concentration": float("nan")}, "a positive finite concentration, got nan"),
        ({"concentration": float("inf")}, "a positive finite concentration, got inf"),
    ],
)
def test_arguments_out_of_range_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=f"MarkovSource: expected {message}"):
        MarkovSource(**arguments)


def test_load_corpus():
    corpus = markov.load_corpus(seed=2, train_size=300, valid_size=20, test_size=10, num_symbols=3)
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [300, 20, 10]
    assert corpus.word_to_id == {"a": 0, "b": 1, "c": 2}
    assert corpus.level == "symbol"
    assert corpus.eos_id is None
    assert corpus.first_id == 0
    assert corpus.encode(corpus.decode(corpus.test)) == corpus.test.tolist()
    again = markov.load_corpus(seed=2, train_size=300, valid_size=20, test_size=10, num_symbols=3)
    np.testing.assert_array_equal(corpus.train, again.train)


def test_the_corpus_comes_from_the_source_of_the_same_seed():
    corpus = markov.load_corpus(seed=5)
    source = MarkovSource(seed=5)
    mean = negative_log_likelihood(source, corpus.train) / len(corpus.train)
    assert mean == pytest.approx(source.entropy_rate, abs=0.02)
    stranger = MarkovSource(seed=6)
    assert negative_log_likelihood(stranger, corpus.train) / len(corpus.train) > mean + 0.5


def test_load_corpus_rejects_an_empty_split():
    with pytest.raises(ValueError, match=r"markov: expected sizes of at least 1, got \(10, 0, 5\)"):
        markov.load_corpus(train_size=10, valid_size=0, test_size=5)
