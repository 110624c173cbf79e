"""Update rules: two steps on paper, state that goes on where it stopped. Ten steps beside
PyTorch's are in test_parity_torch.py.
"""

import math

import numpy as np
import pytest

from common.optimizer import SGD, AdaGrad, Adam, AdamW, Momentum, Nesterov, RMSprop
from tests.builders import D, H, floats, generator, same

RULES = [SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW]
every_rule = pytest.mark.parametrize("rule", RULES)


# One weight of 1, a learning rate of 0.1, the gradients 0.5 and -0.25; the sums in comments.
ON_PAPER = [
    (SGD, {}, [1 - 0.05, 0.95 + 0.025]),
    (SGD, {"weight_decay": 0.5}, [1 - 0.05 - 0.05, 0.9 + 0.025 - 0.045]),
    # v = 0.5, then 0.45 - 0.25 = 0.2
    (Momentum, {"momentum": 0.9}, [1 - 0.05, 0.95 - 0.02]),
    # g + 0.9 v = 0.95, then -0.25 + 0.18 = -0.07
    (Nesterov, {"momentum": 0.9}, [1 - 0.095, 0.905 + 0.007]),
    # v = 0.25, then 0.3125
    (AdaGrad, {"eps": 0}, [1 - 0.1, 0.9 + 0.025 / math.sqrt(0.3125)]),
    # v = 0.0625, then 0.046875 + 0.015625 = 0.0625 again; its root is 0.25
    (RMSprop, {"decay_rate": 0.75, "eps": 0}, [1 - 0.2, 0.8 + 0.1]),
    # m = 0.375 over 0.75, v = 0.0625 over 0.25: 0.5 / 0.5; then
    # m = -0.09375 over 0.9375 = -0.1, v = 0.0625 over 0.4375 = 1 / 7
    (Adam, {"beta1": 0.25, "beta2": 0.75, "eps": 0}, [1 - 0.1, 0.9 + 0.01 * math.sqrt(7)]),
    # the same, each step after w *= 1 - 0.1 * 0.5
    (
        AdamW,
        {"beta1": 0.25, "beta2": 0.75, "eps": 0, "weight_decay": 0.5},
        [0.95 - 0.1, 0.95 * 0.85 + 0.01 * math.sqrt(7)],
    ),
]


@pytest.mark.parametrize(
    ("rule", "options", "expected"), ON_PAPER, ids=[rule.__name__ for rule, *_ in ON_PAPER]
)
def test_two_steps_on_paper(rule, options, expected):
    w, optimizer = np.array([1.0]), rule(0.1, **options)
    for gradient, want in zip([0.5, -0.25], expected, strict=True):
        optimizer.update([w], [np.array([gradient])])
        assert w[0] == pytest.approx(want, rel=1e-12)
    assert optimizer.iter == 2


@every_rule
def test_parameters_change_in_place_and_gradients_not_at_all(rule):
    rng = generator()
    params, grads = [floats(rng, D, H), floats(rng, H)], [floats(rng, D, H), floats(rng, H)]
    held, before = list(params), [p.copy() for p in params]
    kept = [g.copy() for g in grads]
    optimizer = rule(0.1)
    for _ in range(2):
        optimizer.update(params, grads)
    for now, array, then in zip(params, held, before, strict=True):
        assert now is array
        assert not np.array_equal(now, then)
    for now, then in zip(grads, kept, strict=True):
        same(now, then)


@every_rule
def test_float32_stays_float32_in_the_weights_and_in_the_state(rule):
    w = floats(generator(), H, dtype="float32")
    optimizer = rule(0.1)
    optimizer.update([w], [w.copy()])
    assert w.dtype == "float32"
    assert {a.dtype.name for arrays in optimizer.state.values() for a in arrays} <= {"float32"}


@every_rule
def test_a_transposed_view_is_updated_like_a_plain_array(rule):
    rng = generator()
    plain, gradient = floats(rng, D, H), floats(rng, D, H)
    memory = plain.T.copy()
    first, second = rule(0.1), rule(0.1)
    for _ in range(2):
        first.update([plain], [gradient])
        second.update([memory.T], [gradient])
    same(memory.T, plain)


@every_rule
def test_a_loaded_state_goes_on_bit_for_bit(rule):
    rng = generator()
    shapes = [(D, H)] * 12  # more than ten, so that "v.10" comes before "v.2" in the alphabet
    start = [floats(rng, *shape) for shape in shapes]
    steps = [[floats(rng, *shape) for shape in shapes] for _ in range(4)]
    through = [p.copy() for p in start]
    optimizer = rule(0.05)
    for grads in steps[:2]:
        optimizer.update(through, grads)
    state, resumed = optimizer.state_dict(), [p.copy() for p in through]
    for grads in steps[2:]:
        optimizer.update(through, grads)  # must not change what state_dict returned
    other = rule(0.9)
    other.load_state_dict(state)
    for grads in steps[2:]:
        other.update(resumed, grads)
    assert (other.lr, other.iter) == (0.05, 4)
    for got, want in zip(resumed, through, strict=True):
        same(got, want)


@every_rule
def test_loading_copies_the_state(rule):
    w, optimizer, other = np.ones(3), rule(0.1), rule(0.1)
    optimizer.update([w], [np.ones(3)])
    state = optimizer.state_dict()
    kept = {key: np.copy(value) for key, value in state.items()}
    other.load_state_dict(state)
    other.update([w], [np.ones(3)])
    for key, value in kept.items():
        same(state[key], value)


@every_rule
def test_the_state_before_the_first_step_is_two_numbers(rule):
    optimizer = rule(0.1)
    assert optimizer.state_dict() == {"lr": 0.1, "iter": 0}
    optimizer.load_state_dict({"lr": 0.2, "iter": 0})
    w = np.ones(2)
    optimizer.update([w], [np.ones(2)])
    assert optimizer.lr == 0.2
    assert (w < 1).all()


def test_the_state_is_named_by_slot_and_place():
    adam = Adam()
    adam.update([np.ones(2), np.ones(3)], [np.ones(2), np.ones(3)])
    assert sorted(adam.state_dict()) == ["iter", "lr", "m.0", "m.1", "v.0", "v.1"]


@pytest.mark.parametrize(
    "spoil",
    [lambda s: s.pop("lr"), lambda s: s.pop("v.0"), lambda s: s.update({"x.0": np.ones(2)})],
    ids=["no lr", "no v.0", "unknown x.0"],
)
def test_a_state_with_other_keys_is_refused_by_name(spoil):
    adam = Adam()
    adam.update([np.ones(2)], [np.ones(2)])
    state = adam.state_dict()
    spoil(state)
    with pytest.raises(ValueError, match=r"^Adam: expected lr, iter and the slots"):
        adam.load_state_dict(state)


@pytest.mark.parametrize(("source", "target"), [(Adam, SGD), (SGD, Adam), (Adam, Momentum)])
def test_the_state_of_a_rule_with_other_slots_is_refused_by_name(source, target):
    optimizer = source()
    optimizer.update([np.ones(2)], [np.ones(2)])
    state = optimizer.state_dict()
    if source is SGD:
        state["v.0"] = np.ones(2)
    with pytest.raises(ValueError, match=f"^{target.__name__}: expected"):
        target().load_state_dict(state)


def test_a_momentum_is_not_taken_for_a_mean_of_squares():
    """A negative mean of squares has no root."""
    momentum = Momentum(0.1)
    momentum.update([np.ones(2)], [-np.ones(2)])
    with pytest.raises(ValueError, match="AdaGrad"):
        AdaGrad(0.1).load_state_dict(momentum.state_dict())


@every_rule
@pytest.mark.parametrize(
    ("params", "grads"),
    [
        ([np.ones(2)], [np.ones(3)]),
        ([np.ones(2)], [np.ones((1, 2))]),
        ([np.ones(2)], []),
        ([np.ones(2)], [np.ones(2), np.ones(2)]),
    ],
)
def test_gradients_that_do_not_fit_are_refused_and_change_nothing(rule, params, grads):
    optimizer, before = rule(0.1), [p.copy() for p in params]
    with pytest.raises(ValueError, match=f"^{rule.__name__}: expected one gradient"):
        optimizer.update(params, grads)
    assert optimizer.iter == 0
    for now, then in zip(params, before, strict=True):
        same(now, then)


@pytest.mark.parametrize("rule", [AdaGrad, RMSprop, Adam, AdamW])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of squares, which then weigh all
def test_a_gradient_whose_square_has_no_room_leaves_the_weights_finite(rule):
    w, optimizer = np.ones(3, dtype="float32"), rule(0.1)
    for size in (1.0, 1e25, 3e38, 1.0):
        optimizer.update([w], [np.array([size, -size, 1], dtype="float32")])
    assert np.isfinite(w).all()


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule is not SGD])
def test_parameters_of_other_shapes_than_the_state_are_refused(rule):
    optimizer = rule(0.1)
    optimizer.update([np.ones(2)], [np.ones(2)])
    with pytest.raises(ValueError, match="parameters of other shapes"):
        optimizer.update([np.ones(3)], [np.ones(3)])


@every_rule
@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_learning_rate_that_is_no_step_is_refused_by_name(rule, lr):
    with pytest.raises(ValueError, match=f"^{rule.__name__}: expected a finite learning rate"):
        rule(lr)


@every_rule
def test_the_learning_rate_may_change_between_steps(rule):
    w, optimizer = np.ones(1), rule(0.1)
    optimizer.update([w], [np.ones(1)])
    after_one = w.copy()
    optimizer.lr = 0
    optimizer.update([w], [np.ones(1)])
    same(w, after_one)
