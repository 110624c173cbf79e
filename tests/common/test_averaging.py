"""Averages of weights against their definition, in place and back, stopped and gone on."""

import math

import numpy
import pytest

from common.averaging import WeightAverage, validation_got_worse
from common.np import np, to_cpu
from tests.builders import D, H, close, floats, generator, same, tiny_model

on_both = pytest.mark.usefixtures("backend")


def some_params(dtype="float64"):
    """Two arrays, the second a transposed view."""
    rng = generator()
    return [floats(rng, D, H, dtype=dtype), floats(rng, H, D, dtype=dtype).T]


def walk(params, average, steps, seed=1):
    """Move the weights at random; the iterates (steps, ...) of each parameter."""
    rng, iterates = generator(seed), [[] for _ in params]
    for _ in range(steps):
        for param, seen in zip(params, iterates, strict=True):
            param += floats(rng, *param.shape, dtype=str(param.dtype))
            seen.append(to_cpu(param).copy())
        average.update()
    return [numpy.array(seen) for seen in iterates]


@on_both
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_without_a_decay_it_is_the_mean_of_all_weights_since_it_began(steps):
    params = some_params()
    average = WeightAverage(params)
    for kept, seen in zip(average.averages, walk(params, average, steps), strict=True):
        close(kept, seen.mean(axis=0))
    assert average.count == steps


@on_both
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_with_a_decay_older_weights_count_less_and_those_before_the_first_update_not_at_all(decay):
    params, steps = some_params(), 6
    average = WeightAverage(params, decay)
    shares = decay ** numpy.arange(steps)[::-1].astype(float)
    for kept, seen in zip(average.averages, walk(params, average, steps), strict=True):
        close(kept, numpy.tensordot(shares / shares.sum(), seen, axes=1))


def test_before_the_first_update_it_is_the_weights_as_they_were():
    params = some_params()
    before = [param.copy() for param in params]
    average = WeightAverage(params)
    params[0] += 1
    with average.applied():
        same(params[0], before[0])


@on_both
def test_inside_applied_the_models_own_arrays_hold_the_average_and_afterwards_the_weights():
    model = tiny_model("BetterRnnlm")
    arrays = list(model.params)
    average = WeightAverage(model.params, 0.9)
    iterates = walk(model.params, average, 3)
    xs = np.zeros((1, 4), dtype="int32")
    before, plain = [np.array(p) for p in model.params], model.predict(xs)
    model.reset_state()
    with average.applied():
        for param, kept in zip(model.params, average.averages, strict=True):
            same(param, kept)
        assert float(abs(model.predict(xs) - plain).max()) > 1e-3
        # The tied output weight is a view of the embedding's memory.
        same(model.layers[-1].params[0], average.averages[0].T)
    for param, array, weight, seen in zip(model.params, arrays, before, iterates, strict=True):
        assert param is array
        same(param, weight)
        same(param, seen[-1])


def test_an_error_inside_applied_gives_the_weights_back_too():
    params = some_params("float32")
    average = WeightAverage(params)
    walk(params, average, 2)
    before = params[0].copy()
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    same(params[0], before)


@pytest.mark.parametrize("decay", [None, 0.8])
def test_it_goes_on_from_its_state_as_if_it_had_never_stopped(decay):
    whole, parts = some_params("float32"), some_params("float32")
    unbroken = WeightAverage(whole, decay)
    walk(whole, unbroken, 3, seed=1)
    walk(whole, unbroken, 2, seed=2)

    first = WeightAverage(parts, decay)
    walk(parts, first, 3, seed=1)
    state = first.state_dict()
    first.update()  # the state holds copies
    second = WeightAverage(parts, decay)
    second.load_state_dict(state)
    walk(parts, second, 2, seed=2)
    assert second.count == unbroken.count == 5
    for a, b in zip(second.averages, unbroken.averages, strict=True):
        same(a, b)


def test_float32_stays_float32():
    params = some_params("float32")
    average = WeightAverage(params, 0.9)
    walk(params, average, 2)
    assert {str(array.dtype) for array in average.averages} == {"float32"}


def test_the_state_of_another_kind_of_mean_is_refused():
    exponential, uniform = WeightAverage(some_params(), 0.9), WeightAverage(some_params())
    with pytest.raises(ValueError, match=r"the state of decay None, got 0\.9"):
        uniform.load_state_dict(exponential.state_dict())


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"WeightAverage: expected a decay in \[0, 1\), got"):
        WeightAverage(some_params(), decay)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("count"), "expected count, decay and 2 averages"),
        (lambda state: state.update({"average.2": 0}), "expected count, decay and 2 averages"),
        (lambda state: state.update({"average.1": numpy.zeros(3)}), r"average.1 of shape \(4, 5\)"),
    ],
)
def test_a_state_of_other_weights_is_refused_and_changes_nothing(change, message):
    average = WeightAverage(some_params())
    average.update()
    before = [array.copy() for array in average.averages]
    state = average.state_dict()
    state["average.0"] = state["average.0"] + 1
    change(state)
    with pytest.raises(ValueError, match=message):
        average.load_state_dict(state)
    for array, kept in zip(average.averages, before, strict=True):
        same(array, kept)


# ---- when to begin ----


def answers(values, window):
    """What is said after each of the validations."""
    return [validation_got_worse(values[: k + 1], window) for k in range(len(values))]


def test_it_waits_until_a_value_is_worse_than_the_best_but_the_last_two():
    values = [5.0, 4.0, 3.0, 3.5, 3.4, 3.3, 2.0]
    # 3.5 is compared with 5, 3.4 with 5 and 4, 3.3 with 5, 4 and 3; and what was said stays so.
    assert answers(values, 2) == [False, False, False, False, False, True, True]


def test_it_stays_quiet_while_values_fall():
    assert not any(answers([10 - 0.1 * k for k in range(50)], 5))


def test_the_first_values_cannot_be_worse():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert not any(answers(values, 5))
    assert validation_got_worse([*values, 1.5], 5)  # than the first, since when five others came
    assert validation_got_worse([*values, 1.5]) and not validation_got_worse([*values, 1.0])


def test_with_a_window_of_zero_the_first_value_that_is_worse_decides():
    assert answers([3.0, 2.0, 2.0, 2.1], 0) == [False, False, False, True]


def test_before_the_first_validation_nothing_is_worse():
    assert not validation_got_worse([])


@pytest.mark.parametrize(
    ("values", "window", "message"),
    [
        ([1.0], -1, "expected a window of 0 or more, got -1"),
        ([1.0, math.nan, 2.0], 5, "expected numbers, got nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, window, message):
    with pytest.raises(ValueError, match=f"^validation_got_worse: {message}"):
        validation_got_worse(values, window)
