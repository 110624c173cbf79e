"""Units planted among noise are found, and their scores are the ones known by hand."""

import math

import numpy as np
import pytest

from train.inspection.activations import LayerActivations
from train.inspection.properties import Property
from train.inspection.selectivity import average_ranks, find_units

T, H = 400, 20


def noise(seed=0, width=H):
    return np.random.default_rng(seed).standard_normal((T, width)).astype("float32")


def in_runs(seed=1):
    """A property that stays so for a while, as a quotation does."""
    return Property("runs", "", np.repeat(np.random.default_rng(seed).random(T // 10) < 0.3, 10))


def one_layer(**states):
    return [LayerActivations("lstm", states, {})]


def test_ranks_are_those_of_the_definition():
    values = np.array([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0], [2.0, 0.5]], "float32")
    assert average_ranks(values).tolist() == [[3.5, 3], [1, 3], [3.5, 3], [2, 1]]


def auc_by_pairs(values, member):
    """The definition: over all pairs, how often the member is larger; half where they are equal."""
    pairs = values[member][:, None] - values[~member]
    return ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size


def test_auc_is_the_share_of_pairs_in_order():
    h = np.round(noise(), 1)  # so that some are equal
    runs = in_runs()
    (found,) = find_units(one_layer(h=h), [runs], H)
    assert (found.measure, found.members, found.middle) == ("AUC", runs.values.sum(), 0.5)
    for unit in found.units:
        assert unit.score == pytest.approx(auc_by_pairs(h[:, unit.number], runs.values), abs=1e-6)
    away = [abs(unit.score - 0.5) for unit in found.units]
    assert away == sorted(away, reverse=True)


def test_the_correlation_is_that_of_the_ranks():
    h = noise()
    place = Property("place", "", (np.arange(T) % 7).astype("int32"))
    h[:, 3] += place.values
    (found,) = find_units(one_layer(h=h), [place], H)
    assert (found.measure, found.members, found.middle) == ("rank correlation", T, 0.0)
    assert found.units[0].number == 3
    ranks = average_ranks(np.stack([h[:, 3], place.values.astype("float32")], axis=1))
    assert found.units[0].score == pytest.approx(np.corrcoef(ranks.T)[0, 1], abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_unit_is_found_by_its_better_state_and_beyond_chance(sign):
    h, c = noise(2), noise(3)
    runs = in_runs()
    c[:, 7] += sign * 3 * runs.values
    h[:, 7] += sign * runs.values
    layers = [*one_layer(h=noise(4)), *one_layer(h=h, c=c)]
    (found,) = find_units(layers, [runs], 3)
    best = found.units[0]
    assert (best.layer, best.state, best.number) == (1, "c", 7)
    assert sign * (best.score - 0.5) > 0.45 > found.chance
    assert len({(unit.layer, unit.number) for unit in found.units}) == len(found.units) == 3


def test_where_nothing_is_planted_the_best_unit_is_as_by_chance():
    clear = 0
    for seed in range(10):
        (found,) = find_units(one_layer(h=noise(seed + 10)), [in_runs(seed)], 1)
        clear += abs(found.units[0].score - 0.5) > found.chance
    assert clear <= 3  # one of twenty in the mean


def test_what_is_the_same_of_all_tokens_finds_nothing():
    none = Property("none", "", np.zeros(T, bool))
    (found,) = find_units(one_layer(h=noise()), [none], 5)
    assert (found.members, found.units) == (0, []) and math.isnan(found.chance)


def test_a_text_of_two_tokens_can_be_searched():
    both = Property("second", "", np.array([False, True]))
    (found,) = find_units(one_layer(h=noise()[:2]), [both], 2)
    assert {unit.score for unit in found.units} <= {0.0, 1.0}
    assert find_units(one_layer(h=noise()[:1]), [Property("", "", both.values[:1])], 2)
