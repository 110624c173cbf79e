"""Which units follow a property of the text, and how closely.

Of a property that is so or not, the measure is the AUC: the probability that the unit is larger
after a token for which it is so than after one for which it is not (Mann and Whitney 1947), 0.5
where the unit says nothing, 1 or 0 where a threshold tells all. Of a number it is Spearman's (1904)
rank correlation. Both look at the order of the values alone, so no unit gains by its scale.

Among thousands of units some look selective by chance. How many, a shift tells: the property is
moved along the text in a circle, which keeps its runs and breaks its tie to the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from train.inspection.activations import LayerActivations
from train.inspection.properties import Property

__all__ = ["AUC", "CORRELATION", "Found", "Unit", "average_ranks", "find_units"]

AUC, CORRELATION = "AUC", "rank correlation"
SHIFTS = 99  # of the property along the text, at most


@dataclass(frozen=True)
class Unit:
    """A unit and how well it follows a property.

    Args:
        layer: number of the layer, from 0.
        state: which state, such as "h".
        number: of the unit, from 0.
        score: AUC or rank correlation.
    """

    layer: int
    state: str
    number: int
    score: float


@dataclass(frozen=True)
class Found:
    """The units that follow one property best.

    Args:
        measure: "AUC" or "rank correlation".
        members: of how many tokens it is so, or of how many it is a number.
        chance: what the best unit reaches in 95 % of shifted texts, as a distance: of the AUC from
            0.5, of the correlation from 0; NaN in a text too short to tell.
        units: the best first; none where the property is the same of all tokens.
    """

    measure: str
    members: int
    chance: float
    units: list[Unit]

    @property
    def middle(self) -> float:
        """The score of a unit that says nothing."""
        return 0.5 if self.measure == AUC else 0.0


def average_ranks(values: numpy.ndarray) -> numpy.ndarray:
    """Ranks from 1 of each column, equal values sharing their mean rank; (T, H) -> float32 (T, H).

    Exact up to 2**23 tokens.
    """
    T, H = values.shape
    ranks = numpy.empty((T, H), "float32")
    for unit in range(H):
        column = values[:, unit]
        order = numpy.argsort(column, kind="stable")
        ordered = column[order]
        begins = numpy.flatnonzero(numpy.concatenate(([True], ordered[1:] != ordered[:-1])))
        sizes = numpy.diff(numpy.append(begins, T))
        ranks[order, unit] = numpy.repeat(begins + (sizes + 1) / 2, sizes)
    return ranks


def find_units(
    layers: Sequence[LayerActivations], wanted: Sequence[Property], count: int
) -> list[Found]:
    """The units that follow each property best, with the better one of a unit's states.

    Args:
        layers: what they held after each token.
        wanted: the properties, each of the same T tokens.
        count: how many units of each at most.
    """
    places = [(k, state) for k, layer in enumerate(layers) for state in layer.states]
    ranks = [average_ranks(layers[k].states[state]) for k, state in places]
    return [_find(places, ranks, each, count) for each in wanted]


def _find(
    places: Sequence[tuple[int, str]],
    ranks: Sequence[numpy.ndarray],
    wanted: Property,
    count: int,
) -> Found:
    is_class = wanted.values.dtype == bool
    measure = AUC if is_class else CORRELATION
    members = int(wanted.values.sum()) if is_class else len(wanted.values)
    if wanted.values.min() == wanted.values.max():
        return Found(measure, members, float("nan"), [])
    T = len(wanted.values)
    shifts = sorted({T * k // (SHIFTS + 1) for k in range(SHIFTS + 1)})
    columns = numpy.stack([numpy.roll(wanted.values, by) for by in shifts], axis=1)
    if not is_class:
        columns = _standard(average_ranks(columns))
    best = numpy.zeros(len(shifts))
    units: dict[tuple[int, int], Unit] = {}
    for (layer, state), of_units in zip(places, ranks, strict=True):
        scores = (_auc if is_class else _correlation)(of_units, columns)  # (H, shifts)
        middle = 0.5 if is_class else 0.0
        best = numpy.maximum(best, abs(scores - middle).max(axis=0))
        for number, score in enumerate(scores[:, 0].tolist()):
            known = units.get((layer, number))
            if known is None or abs(score - middle) > abs(known.score - middle):
                units[layer, number] = Unit(layer, state, number, score)
    ordered = sorted(units.values(), key=lambda unit: -abs(unit.score - middle))
    chance = float(numpy.quantile(best[1:], 0.95)) if len(shifts) > 1 else float("nan")
    return Found(measure, members, chance, ordered[:count])


def _auc(ranks: numpy.ndarray, member: numpy.ndarray) -> numpy.ndarray:
    """AUC of every unit (T, H) for every set of members, bool (T, S) -> float64 (H, S)."""
    T, P = len(ranks), member[:, 0].sum()
    centred = ranks - numpy.float32((T + 1) / 2)
    sums = (centred.T @ member.astype("float32")).astype("float64")
    return 0.5 + sums / (float(P) * float(T - P))


def _correlation(ranks: numpy.ndarray, standard: numpy.ndarray) -> numpy.ndarray:
    """Of every unit (T, H) with every column of :func:`_standard` (T, S) -> float64 (H, S)."""
    return (_standard(ranks).T @ standard).astype("float64")


def _standard(ranks: numpy.ndarray) -> numpy.ndarray:
    """Columns of mean 0 and length 1; of 0 where all are equal."""
    centred = ranks - ranks.mean(axis=0, dtype="float64")
    lengths = numpy.sqrt((centred**2).sum(axis=0))
    return (centred / numpy.where(lengths > 0, lengths, 1)).astype("float32")
