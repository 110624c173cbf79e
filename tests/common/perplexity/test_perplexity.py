"""Both protocols beside a direct sum, for a model whose every probability is written down."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.util import eval_perplexity, eval_perplexity_exact

CYCLE = 3  # the probabilities come again after so many steps, so that a state lost is seen


class KnownProbabilities:
    """p(t | x) after k steps from a reset is ``tables[k % CYCLE, x, t]``."""

    def __init__(self, V, seed):
        weights = np.random.default_rng(seed).uniform(0.01, 1, (CYCLE, V, V))
        self.tables = weights / weights.sum(axis=2, keepdims=True)
        self.steps = 0

    def reset_state(self):
        self.steps = 0

    def get_state(self):
        return self.steps

    def set_state(self, state):
        self.steps = state

    def forward(self, xs, ts):
        """Mean of -log p over the targets of a window (N, T)."""
        T = xs.shape[1]
        k = (self.steps + np.arange(T)) % CYCLE
        self.steps += T
        return -np.log(self.tables[k, xs, ts]).mean()

    def nll(self, tokens):
        """-log p of every token but the first, read one by one from a zero state."""
        pairs = pairwise(tokens)
        return [-math.log(self.tables[k % CYCLE, x, t]) for k, (x, t) in enumerate(pairs)]


sizes = {"V": st.integers(1, 5), "seed": st.integers(0, 99), "length": st.integers(1, 60)}


def corpus_of(V, seed, length):
    return np.random.default_rng([seed, length]).integers(0, V, length)


@given(**sizes, time_size=st.integers(1, 70))
def test_the_exact_protocol_is_the_sum_over_all_tokens(V, seed, length, time_size):
    model, corpus = KnownProbabilities(V, seed), corpus_of(V, seed, length)
    first_id = seed % V
    nll = model.nll([first_id, *corpus])
    assert len(nll) == length
    model.set_state(7)
    got = eval_perplexity_exact(model, corpus, first_id, time_size)
    assert got == pytest.approx(math.exp(math.fsum(nll) / length), rel=1e-12)
    assert model.get_state() == 7


@given(**sizes, batch_size=st.integers(1, 6), time_size=st.integers(1, 8))
def test_the_books_protocol_is_the_sum_over_whole_windows_of_its_streams(
    V, seed, length, batch_size, time_size
):
    model, corpus = KnownProbabilities(V, seed), corpus_of(V, seed, length)
    model.set_state(7)
    stream = (length - 1) // batch_size
    steps = stream // time_size * time_size
    if steps == 0:
        with pytest.raises(ValueError, match=f"got {length}"):
            eval_perplexity(model, corpus, batch_size, time_size)
        return
    nll = [
        value
        for begin in range(0, batch_size * stream, stream)
        for value in model.nll(corpus[begin : begin + steps + 1])
    ]
    got = eval_perplexity(model, corpus, batch_size, time_size)
    assert got == pytest.approx(math.exp(math.fsum(nll) / len(nll)), rel=1e-12)
    assert model.get_state() == 7
    assert length - 1 - len(nll) < batch_size * time_size  # no more than one batch is left out


@given(**sizes)
def test_the_two_protocols_agree_on_one_stream_of_whole_windows(V, seed, length):
    """They then differ only in what is fed before the first token."""
    model, corpus = KnownProbabilities(V, seed), corpus_of(V, seed, length + 1)
    book = eval_perplexity(model, corpus, batch_size=1, time_size=length)
    exact = eval_perplexity_exact(model, corpus[1:], first_id=int(corpus[0]))
    assert book == pytest.approx(exact, rel=1e-12)


@given(V=st.integers(1, 5), length=st.integers(1, 40), time_size=st.integers(1, 50))
def test_a_corpus_that_is_certain_has_perplexity_one(V, length, time_size):
    model, corpus = KnownProbabilities(V, 0), np.arange(1, length + 1) % V
    model.tables[:] = np.eye(V)[(np.arange(V) + 1) % V]
    with np.errstate(divide="ignore"):
        assert eval_perplexity_exact(model, corpus, 0, time_size) == 1.0
