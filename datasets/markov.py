"""An artificial source of symbols whose entropy rate, and so the best perplexity, is known."""

from __future__ import annotations

import string
from bisect import bisect_right

import numpy as np

from datasets.corpus import Corpus
from datasets.vocabulary import Vocabulary

__all__ = ["MarkovSource", "load_corpus"]

_MAX_CONTEXTS = 4096  # the stationary distribution is one dense solve of this size
_FLOOR = 0.01  # share of the uniform distribution in every row: no transition is impossible


class MarkovSource:
    """Stationary Markov source of a given order with random transitions.

    A context is the last ``order`` symbols, read as a number in base K, K = ``num_symbols``.
    The transition p(symbol | context) is 0.99 Dirichlet(concentration) + 0.01 / K, drawn once
    per context; all are positive, so the stationary distribution π over contexts is unique, and
    the entropy rate is

        H = -Σ_c π(c) Σ_s p(s | c) ln p(s | c)    (nats per symbol)

    Source: Cover and Thomas, Elements of Information Theory, 2nd edition, theorem 4.2.4.

    Args:
        num_symbols: K, 2 to 26.
        order: Length of a context, at least 1.
        seed: Of the transitions, at least 0.
        concentration: Of the Dirichlet distribution; the smaller, the more predictable.

    Attributes:
        transition: p(symbol | context), float64 of shape (K ** order, K).
        stationary: π, float64 of shape (K ** order,).
        entropy_rate: H in nats per symbol.

    Raises:
        ValueError: An argument is out of range, or K ** order is above 4096.
    """

    def __init__(
        self,
        num_symbols: int = 8,
        order: int = 2,
        seed: int = 0,
        concentration: float = 0.3,
    ) -> None:
        K = num_symbols
        if not 2 <= K <= len(string.ascii_lowercase):
            raise ValueError(f"MarkovSource: expected num_symbols in 2..26, got {K}")
        if order < 1 or K**order > _MAX_CONTEXTS:
            raise ValueError(
                f"MarkovSource: expected order of at least 1 and at most {_MAX_CONTEXTS} "
                f"contexts, got order {order}, which makes {K}**{order}"
            )
        if seed < 0:
            raise ValueError(f"MarkovSource: expected seed of at least 0, got {seed}")
        if not 0 < concentration < np.inf:
            raise ValueError(
                f"MarkovSource: expected a positive finite concentration, got {concentration}"
            )
        self.num_symbols = K
        self.order = order
        rng = np.random.default_rng([seed, 0])
        rows = rng.dirichlet(np.full(K, concentration), size=K**order)
        self.transition = (1 - _FLOOR) * rows + _FLOOR / K
        self.stationary = _stationary(self.transition)
        row_entropy = -(self.transition * np.log(self.transition)).sum(axis=1)
        self.entropy_rate = float(self.stationary @ row_entropy)

    @property
    def perplexity_floor(self) -> float:
        """exp(H): no model does better on average over a long sequence."""
        return float(np.exp(self.entropy_rate))

    def sample(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a sequence, its first context from the stationary distribution.

        Returns:
            ids, int32 of shape (length,).

        Raises:
            ValueError: ``length`` is negative.
        """
        if length < 0:
            raise ValueError(f"MarkovSource: expected length of at least 0, got {length}")
        K, contexts = self.num_symbols, self.num_symbols**self.order
        cumulative = self.transition.cumsum(axis=1)
        cumulative[:, -1] = 1.0  # whatever rounding made of it; the draws stay below
        rows = cumulative.tolist()
        context = int(rng.choice(contexts, p=self.stationary))
        ids = [context // K**i % K for i in reversed(range(self.order))]
        for u in rng.random(max(0, length - self.order)).tolist():
            symbol = bisect_right(rows[context], u)
            ids.append(symbol)
            context = (context * K + symbol) % contexts
        return np.array(ids[:length], np.int32)


def load_corpus(
    seed: int = 0,
    train_size: int = 100_000,
    valid_size: int = 10_000,
    test_size: int = 10_000,
    *,
    num_symbols: int = 8,
    order: int = 2,
    concentration: float = 0.3,
) -> Corpus:
    """One long sample of a ``MarkovSource``, cut in three; the symbols are named a, b, c, ...

    ``MarkovSource`` with the same ``seed`` and shape tells the floor of the perplexity.

    Args:
        seed: Of the transitions and of the sample.
        train_size: Number of symbols, at least 1.
        valid_size: Number of symbols, at least 1.
        test_size: Number of symbols, at least 1.
        num_symbols: See ``MarkovSource``.
        order: See ``MarkovSource``.
        concentration: See ``MarkovSource``.

    Raises:
        ValueError: An argument is out of range.
    """
    sizes = (train_size, valid_size, test_size)
    if min(sizes) < 1:
        raise ValueError(f"markov: expected sizes of at least 1, got {sizes}")
    source = MarkovSource(num_symbols, order, seed, concentration)
    # A stream of its own: [seed, 0] has drawn the transitions.
    ids = source.sample(sum(sizes), np.random.default_rng([seed, 1]))
    names = string.ascii_lowercase[:num_symbols]
    return Corpus(
        name="markov",
        train=ids[:train_size],
        valid=ids[train_size : train_size + valid_size],
        test=ids[train_size + valid_size :],
        vocabulary=Vocabulary(tuple(names), "symbol"),
        about=(
            f"a Markov source of {num_symbols} symbols, order {order} and seed {seed}; no model "
            f"does better than perplexity {source.perplexity_floor:.4f} over a long text\n"
            f"{train_size:,} training, {valid_size:,} validation and {test_size:,} test tokens"
        ),
    )


def _stationary(transition: np.ndarray) -> np.ndarray:
    """Solve π = π P with Σ π = 1, P the chain over contexts; returns π of shape (contexts,)."""
    contexts, K = transition.shape
    P = np.zeros((contexts, contexts))
    before = np.arange(contexts)
    for symbol in range(K):
        P[before, (before * K + symbol) % contexts] = transition[:, symbol]
    # The rows of P.T - 1 add up to zero: one of them is implied by the others and makes room
    # for the sum.
    A = P.T - np.eye(contexts)
    A[-1] = 1.0
    b = np.zeros(contexts)
    b[-1] = 1.0
    return np.linalg.solve(A, b)
