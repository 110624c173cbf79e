"""Learning rates by epochs done: corner values, warm-up, and no state to lose."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.schedules import SCHEDULES, schedule

every_name = pytest.mark.parametrize("name", SCHEDULES)


def test_a_constant_rate_is_the_same_at_any_time():
    assert [schedule("constant", 20.0, 10)(e) for e in (0, 0.5, 100)] == [20.0] * 3


def test_a_cosine_starts_at_lr_is_half_way_in_the_middle_and_ends_at_zero():
    rate = schedule("cosine", lr=1.0, epochs=10)
    assert rate(0) == 1.0
    assert rate(5) == pytest.approx(0.5)
    assert rate(10) == 0
    assert rate(2.5) == pytest.approx((1 + math.sqrt(0.5)) / 2)


def test_a_straight_line_falls_by_the_same_amount_in_each_epoch():
    rate = schedule("linear", lr=1.0, epochs=4)
    assert [rate(epoch) for epoch in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


@every_name
def test_warm_up_rises_in_a_straight_line_from_zero(name):
    rate = schedule(name, lr=8.0, epochs=10, warmup=2)
    assert [rate(epochs) for epochs in (0, 0.5, 1, 2)] == [0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_decay_begins_where_the_warm_up_ends(name):
    warm, cold = schedule(name, 1.0, epochs=10, warmup=2), schedule(name, 1.0, epochs=8)
    for epochs in (0, 1.3, 7.9, 8):
        assert warm(2 + epochs) == pytest.approx(cold(epochs))


@every_name
@given(
    lr=st.floats(0, 100),
    epochs=st.floats(1, 100),
    warmup=st.floats(0, 0.9),
    places=st.lists(st.floats(0, 200), min_size=2),
)
def test_no_rate_leaves_its_bounds_and_after_the_warm_up_none_rises(
    name, lr, epochs, warmup, places
):
    rate = schedule(name, lr, epochs, warmup)
    rounding = 1e-12 * lr
    assert all(0 <= rate(place) <= lr + rounding for place in places)
    later = sorted(place for place in places if place >= warmup)
    assert all(rate(b) <= rate(a) + rounding for a, b in pairwise(later))
    if name != "constant":
        assert rate(epochs) == pytest.approx(0, abs=1e-12 + rounding) == rate(10 * epochs)


@every_name
def test_a_schedule_depends_on_the_place_alone_and_not_on_what_was_asked_before(name):
    rate, places = schedule(name, 1.0, 10, warmup=1), [0.5, 7, 3.25, 12]
    forwards = [rate(place) for place in places]
    assert [rate(place) for place in reversed(places)] == forwards[::-1]
    assert [schedule(name, 1.0, 10, warmup=1)(place) for place in places] == forwards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "step"}, "expected a name of constant, cosine, linear, got 'step'"),
        ({"lr": -1.0}, "expected lr of 0 or more, got -1.0"),
        ({"lr": math.nan}, "expected lr of 0 or more, got nan"),
        ({"warmup": -1}, "expected warmup of 0 or more, got -1"),
        ({"warmup": 10}, "expected more epochs than the 10 of warm-up, got 10"),
        ({"epochs": 0}, "expected more epochs than the 0.0 of warm-up, got 0"),
        ({"name": "constant", "lr": math.inf}, "expected lr of 0 or more, got inf"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=f"^schedule: {message}"):
        schedule(**{"name": "cosine", "lr": 1.0, "epochs": 10, **options})


@every_name
@pytest.mark.parametrize("bad", [-0.1, math.nan])
def test_a_place_before_the_start_has_no_rate(name, bad):
    with pytest.raises(ValueError, match=r"^schedule: expected epochs done of 0 or more"):
        schedule(name, 1.0, 10)(bad)
