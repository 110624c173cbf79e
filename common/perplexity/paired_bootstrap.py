"""A paired bootstrap over sentences: whether a difference between models would be there elsewhere.

Efron and Tibshirani (1993), "An Introduction to the Bootstrap". Tokens of a sentence depend on each
other, so whole sentences are drawn, with replacement, as many as the text has. A mean over tokens
is then a sum over the drawn sentences divided by the number of their tokens. What is drawn are the
differences between two models on the same tokens: what makes a sentence hard for both is not in
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from common.perplexity.protocols import perplexity_of, windows

__all__ = [
    "CONFIDENCE",
    "FEWEST_SENTENCES",
    "Difference",
    "Group",
    "paired_bootstrap",
    "resampled_means",
]

CONFIDENCE = 0.95
FEWEST_SENTENCES = 10  # of fewer a bootstrap says nothing
BLOCK = 4_000_000  # drawn sentences that are held at once


@dataclass(frozen=True)
class Difference:
    """How a run differs from the first one on the same tokens.

    Args:
        nll_difference: mean negative log-likelihood above that of the first run, in nats a token.
        interval: where 95 % of the resamples have it; without ends where the tokens stand in too
            few sentences.
        wins: share of resamples in which the run is better, a tie counted half; NaN likewise.
    """

    nll_difference: float
    interval: tuple[float, float]
    wins: float

    @property
    def ratio(self) -> float:
        """The perplexity divided by that of the first run."""
        return perplexity_of(self.nll_difference)

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """``interval`` of the ratio."""
        low, high = self.interval
        return perplexity_of(low), perplexity_of(high)

    @property
    def is_claimed(self) -> bool:
        """Whether the interval leaves out 0."""
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class Group:
    """Some tokens of the text, and how well each run foretells them.

    Args:
        name: which tokens.
        tokens: how many.
        perplexities: one a run.
        differences: one for each run but the first.
    """

    name: str
    tokens: int
    perplexities: list[float]
    differences: list[Difference]


def paired_bootstrap(
    losses: numpy.ndarray,
    sentence_of: numpy.ndarray,
    kinds: Mapping[str, Mapping[str, numpy.ndarray]],
    resamples: int,
    rng: numpy.random.Generator,
) -> dict[str, list[Group]]:
    """Every run against the first one, on every group that has a token.

    Args:
        losses: negative log-likelihood of every token by every run, (runs, tokens).
        sentence_of: the sentence of each token, 0 to S - 1, int (tokens,).
        kinds: for each way to group tokens, the members of each group, bool (tokens,), by name.
        resamples: how many texts of S sentences are drawn, the same ones for all groups.
        rng: draws them.

    Returns:
        The groups of each kind.

    Raises:
        ValueError: for less than one resample, or shapes that do not fit.
    """
    members = [
        (kind, name, group)
        for kind, groups in kinds.items()
        for name, group in groups.items()
        if group.any()
    ]
    differences = losses[1:] - losses[0]
    masks = numpy.stack([group for _, _, group in members])
    means = resampled_means(differences, sentence_of, masks, resamples, rng)
    found: dict[str, list[Group]] = {kind: [] for kind in kinds}
    for (kind, name, group), drawn_means in zip(members, means.T, strict=True):
        found[kind].append(
            Group(
                name,
                tokens=int(group.sum()),
                perplexities=[perplexity_of(float(row[group].mean())) for row in losses],
                differences=[
                    _difference(float(row[group].mean()), drawn, sentence_of[group])
                    for row, drawn in zip(differences, drawn_means, strict=True)
                ],
            )
        )
    return found


def _difference(mean: float, drawn: numpy.ndarray, sentence_of: numpy.ndarray) -> Difference:
    """The difference of a group from its mean in every resample, and the group's sentences."""
    if len(numpy.unique(sentence_of)) < FEWEST_SENTENCES:
        return Difference(mean, (-math.inf, math.inf), math.nan)
    drawn = drawn[~numpy.isnan(drawn)]
    low, high = numpy.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
    wins = (drawn < 0).mean() + (drawn == 0).mean() / 2
    return Difference(mean, (low, high), float(wins))


def resampled_means(
    values: numpy.ndarray,
    sentence_of: numpy.ndarray,
    members: numpy.ndarray,
    resamples: int,
    rng: numpy.random.Generator,
) -> numpy.ndarray:
    """Means of K values over G groups of tokens, in every resample; all in the same resamples.

    Args:
        values: (K, tokens).
        sentence_of: the sentence of each token, 0 to S - 1, int (tokens,).
        members: which tokens belong to each group, bool (G, tokens).
        resamples: how many texts of S sentences are drawn.
        rng: draws them.

    Returns:
        float64 (resamples, K, G); NaN where a resample has no token of the group.

    Raises:
        ValueError: for less than one resample, or shapes that do not fit.
    """
    (K, length), (G, _) = values.shape, members.shape
    if resamples < 1:
        raise ValueError(f"resampled_means: expected resamples of 1 or more, got {resamples}")
    if not (length,) == sentence_of.shape == members.shape[1:]:
        raise ValueError(
            f"resampled_means: expected sentence_of ({length},) and members (G, {length}), got "
            f"{sentence_of.shape} and {members.shape}"
        )
    S = int(sentence_of.max()) + 1
    sums = numpy.stack(
        [
            numpy.bincount(sentence_of, weights=row * group, minlength=S)
            for row in (*values, numpy.ones(length))
            for group in members
        ],
        axis=1,
    )  # (S, (K + 1) G), the last G of them counts of tokens
    means = numpy.empty((resamples, K, G))
    for part in windows(resamples, max(1, BLOCK // S)):
        n = part.stop - part.start
        drawn = rng.integers(S, size=(n, S)) + S * numpy.arange(n)[:, None]
        times = numpy.bincount(drawn.reshape(-1), minlength=n * S).reshape(n, S)
        totals = (times.astype("float64") @ sums).reshape(n, K + 1, G)
        with numpy.errstate(invalid="ignore"):  # 0 / 0 where no token was drawn
            means[part] = totals[:, :-1] / totals[:, -1:]
    return means
