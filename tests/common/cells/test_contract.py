"""What every cell of the package promises; its special cases stand in a file of its own."""

import copy

import pytest

from common.gradient_check import check_layer
from common.np import np
from tests.builders import (
    D,
    H,
    N,
    as_tuple,
    close,
    floats,
    generator,
    gradients_for,
    run,
    same,
    spoil,
)
from tests.common.cells.examples import KINDS, build, inputs_for, random_cell

every_cell = pytest.mark.parametrize("name", KINDS)
on_both = pytest.mark.usefixtures("backend")


@on_both
@every_cell
def test_every_gradient_of_a_step_is_that_of_the_differences(name):
    cell = random_cell(name)
    report = check_layer(cell, *inputs_for(cell), rng=generator(3), subject=name)
    checked = [worst.name for worst in report.worst]
    inputs = [f"input{k}" for k in range(1 + len(cell.state_sizes))]
    assert checked == [*cell.param_names, *inputs]
    assert report.ok, str(report)


@on_both
@every_cell
def test_two_steps_and_backward_twice_change_no_input_and_give_the_same_gradients(name):
    cell = random_cell(name)
    x, *states = inputs_for(cell)
    states = as_tuple(cell.forward(x, *states))
    held = [x, *states, *cell.params]
    before = copy.deepcopy(held)
    dstates = gradients_for(cell.forward(x, *states))
    held, before = [*held, *dstates], [*before, *copy.deepcopy(dstates)]
    cache = copy.deepcopy(cell.cache)
    grads, results = list(cell.grads), []
    for _ in range(2):
        returned = cell.backward(*dstates)
        assert isinstance(returned, tuple)
        results.append(copy.deepcopy([*returned, *cell.grads]))
    for first, second in zip(*results, strict=True):
        same(second, first)
    for now, then in zip(held, before, strict=True):
        same(now, then)
    assert all(now is then for now, then in zip(cell.grads, grads, strict=True))
    compare_caches(cell.cache, cache)


@every_cell
def test_states_that_are_changed_in_place_are_refused_or_do_not_matter(name):
    plain, spoilt = random_cell(name), random_cell(name)
    states = as_tuple(plain.forward(*inputs_for(plain)))
    dstates = gradients_for(states)
    for state in as_tuple(spoilt.forward(*inputs_for(plain))):
        spoil(state)
    for now, want in zip(spoilt.backward(*dstates), plain.backward(*dstates), strict=True):
        same(now, want)
    for now, want in zip(spoilt.grads, plain.grads, strict=True):
        same(now, want)


def compare_caches(now, then):
    if hasattr(now, "dtype"):
        same(now, then)
    else:
        for a, b in zip(now, then, strict=True):
            compare_caches(a, b)


@on_both
@every_cell
def test_gradients_are_overwritten_and_need_nothing_but_the_cache(name):
    """So a time layer may put back the cache of any step and go back from there."""
    cell = random_cell(name)
    x, *states = inputs_for(cell)
    later = as_tuple(cell.forward(x, *states))
    cache, dstates = cell.cache, gradients_for(later)
    expected = [*cell.backward(*dstates), *copy.deepcopy(cell.grads)]
    cell.backward(*gradients_for(cell.forward(2 * x, *later)))
    cell.cache = cache
    for now, want in zip([*cell.backward(*dstates), *cell.grads], expected, strict=True):
        same(now, want)


@on_both
@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cell_computes_in_the_dtype_of_its_parameters(name, dtype):
    cell = build(name, dtype)
    outputs, _, returned = run(cell, inputs_for(cell, dtype))
    results = [*cell.params, *outputs, *returned, *cell.grads]
    assert [str(array.dtype) for array in results] == [dtype] * len(results)


@every_cell
def test_states_parameters_and_gates_are_described(name):
    cell = build(name)
    states = as_tuple(cell.forward(*inputs_for(cell)))
    assert [state.shape for state in states] == [(N, width) for width in cell.state_sizes]
    assert cell.state_sizes == (H,) * len(cell.state_names)
    assert len(cell.param_names) == len(cell.params) == len(cell.grads)
    assert set(cell.recurrent_weights) <= set(cell.param_names)
    by_name = dict(zip(cell.param_names, cell.params, strict=True))
    assert by_name["Wx"].shape == (D, len(cell.gates) * H)


@every_cell
def test_one_seed_draws_one_cell(name):
    first, second, other = build(name), build(name), build(name, seed=1)
    for a, b in zip(first.params, second.params, strict=True):
        same(a, b)
    assert not bool((first.params[0] == other.params[0]).all())


@every_cell
def test_backward_before_forward_names_the_cell(name):
    cell = build(name)
    dstates = [np.ones((N, width)) for width in cell.state_sizes]
    with pytest.raises(RuntimeError, match=rf"^{type(cell).__name__}\.backward.*forward"):
        cell.backward(*dstates)


@every_cell
def test_an_input_or_a_state_of_another_shape_is_refused_by_name(name):
    cell = build(name)
    inputs = inputs_for(cell)
    who = type(cell).__name__
    names = ["x", *(f"{state}_prev" for state in cell.state_names)]
    for k, wrong in enumerate(names):
        wider = [floats(generator(), N, D + H) if j == k else a for j, a in enumerate(inputs)]
        with pytest.raises(ValueError, match=rf"^{who}: expected {wrong} of shape .*, got \({N}, "):
            cell.forward(*wider)
    one_row = [a[:1] if j else a for j, a in enumerate(inputs)]  # would broadcast
    with pytest.raises(ValueError, match=rf"^{who}: expected h_prev of shape \({N}, {H}\)"):
        cell.forward(*one_row)


@every_cell
def test_a_parameter_of_another_shape_is_refused_by_name(name):
    cls, options = KINDS[name]
    params = build(name).params
    for k, param in enumerate(params):
        wrong = [param[..., :-1] if j == k else p for j, p in enumerate(params)]
        with pytest.raises(ValueError, match=rf"^{cls.__name__}: expected \w+ of "):
            cls(*wrong, **options)


@every_cell
def test_a_cell_is_made_of_its_parameters_in_order(name):
    cls, options = KINDS[name]
    cell = random_cell(name)
    copied = cls(*cell.params, **options)
    for now, want in zip(
        as_tuple(copied.forward(*inputs_for(cell))),
        as_tuple(cell.forward(*inputs_for(cell))),
        strict=True,
    ):
        close(now, want, 0)
