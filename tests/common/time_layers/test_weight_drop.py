"""Weight drop: the plain layer with a weight of which elements are zero."""

import pytest

from common.base_layer import Layer
from common.np import np, to_cpu
from common.time_layers import (
    TimeBidirectional,
    TimeBiLSTM,
    TimeCell,
    TimeDropout,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
    TimeStack,
    TimeWeightDrop,
)
from common.time_layers.cell_inputs import TimeCellInputs
from tests.builders import D, H, N, T, V, close, floats, generator, same, weights

pytestmark = pytest.mark.usefixtures("backend")

every_recurrent = pytest.mark.parametrize("kind", [TimeRNN, TimeLSTM, TimeGRU])


def weight_dropped(kind=TimeLSTM, ratio=0.5, seed=3, dtype="float64"):
    layer = kind(*weights(generator(), kind.num_gates, dtype=dtype), stateful=True)
    return TimeWeightDrop(layer, ratio, generator(seed))


def dropped_Wh(layer):
    """The recurrent weight that the last forward pass used."""
    return layer.layer.params[1]


@every_recurrent
def test_it_is_the_plain_layer_with_the_dropped_weight_over_two_windows(kind):
    layer, rng = weight_dropped(kind), generator(5)
    plain = kind(*(param.copy() for param in layer.params), stateful=True)
    for _ in range(2):
        xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
        hs = layer.forward(xs)
        plain.params[1][...] = dropped_Wh(layer)
        same(hs, plain.forward(xs))
        same(layer.backward(dhs), plain.backward(dhs))
        mask = dropped_Wh(layer) / layer.params[1]
        assert {round(float(value), 9) for value in np.unique(mask)} == {0.0, 2.0}
        for k, factor in enumerate([1, mask, 1]):
            close(layer.grads[k], plain.grads[k] * factor)


@every_recurrent
def test_in_evaluation_it_is_the_plain_layer_and_draws_nothing(kind):
    layer, xs = weight_dropped(kind), floats(generator(5), N, T, D)
    plain = kind(*(param.copy() for param in layer.params), stateful=True)
    layer.forward(xs)
    layer.reset_state()
    layer.train_flg = False
    for _ in range(2):
        same(layer.forward(xs), plain.forward(xs))
    assert layer.masks.passes == 1
    with pytest.raises(RuntimeError, match=r"^TimeWeightDrop\.backward"):
        layer.backward(floats(generator(), N, T, H))


def test_the_whole_weight_is_kept_through_training_passes():
    layer, xs = weight_dropped(), floats(generator(5), N, T, D)
    before = layer.params[1].copy()
    layer.forward(xs)
    layer.backward(floats(generator(), N, T, H))
    same(layer.params[1], before)
    layer.params[1][...] *= 2  # as an optimizer does
    layer.reset_state()
    layer.forward(xs)
    used = dropped_Wh(layer) != 0
    close(dropped_Wh(layer)[used], 2 * (2 * before)[used])


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9])
def test_weight_drop_keeps_the_expected_share_and_the_expected_sum(ratio):
    size = 150
    Wx, Wh, b = np.ones((1, size)), np.ones((size, size)), np.zeros(size)
    layer = TimeWeightDrop(TimeRNN(Wx, Wh, b), ratio, generator())
    layer.forward(np.ones((1, 1, 1)))
    mask = dropped_Wh(layer)
    assert float((mask == 0).mean()) == pytest.approx(ratio, abs=0.01)
    assert float(mask.mean()) == pytest.approx(1, abs=0.04)


def test_masks_differ_from_window_to_window_and_a_seed_decides_them():
    xs, masks = floats(generator(5), N, T, D), []
    for seed in (3, 3, 4):
        layer = weight_dropped(seed=seed)
        for _ in range(2):
            layer.forward(xs)
            masks.append(to_cpu(dropped_Wh(layer) != 0).tobytes())
    assert masks[:2] == masks[2:4]
    assert len(set(masks)) == 4


@every_recurrent
def test_its_state_is_that_of_the_layer_inside(kind):
    layer, xs = weight_dropped(kind), floats(generator(5), N, 2 * T, D)
    assert layer.get_state() is None
    layer.train_flg = False
    whole = layer.forward(xs)
    same(layer.h, whole[:, -1])
    layer.reset_state()
    assert layer.h is None
    first = layer.forward(xs[:, :T])
    state = layer.get_state()
    assert len(state) == len(layer.state_names) == (2 if kind is TimeLSTM else 1)
    close(np.concatenate([first, layer.forward(xs[:, T:])], axis=1), whole)
    layer.set_state(*state)
    close(layer.forward(xs[:, T:]), whole[:, T:])
    assert layer.stateful
    assert hasattr(layer, "c") == (kind is TimeLSTM)
    layer.stateful = False
    assert layer.get_state() is None
    close(layer.forward(xs), whole)


def test_the_gradients_of_the_first_state_and_of_the_last_cell_pass_through():
    layer, dc = weight_dropped(), floats(generator(7), N, H)
    plain = TimeLSTM(*(param.copy() for param in layer.params))
    xs, dhs = floats(generator(5), N, T, D), floats(generator(6), N, T, H)
    layer.forward(xs)
    plain.params[1][...] = dropped_Wh(layer)
    plain.forward(xs)
    same(layer.backward(dhs, dc), plain.backward(dhs, dc))
    same(layer.dh, plain.dh)
    same(layer.dc, plain.dc)


def test_of_a_layer_that_reads_both_ways_each_direction_drops_its_own_recurrent_weight():
    params = [*weights(generator(), 4), *weights(generator(1), 4)]
    plain = TimeBiLSTM(*(param.copy() for param in params), stateful=True)
    layer = TimeWeightDrop(TimeBiLSTM(*params, stateful=True), 0.5, generator(3))
    rng = generator(5)
    for _ in range(2):
        xs, dhs = floats(rng, N, T, D), floats(rng, N, T, 2 * H)
        hs = layer.forward(xs)
        masks = [np.ones_like(param) for param in params]
        for k in (1, 4):
            used = layer.layer.params[k]
            masks[k] = used / layer.params[k]
            assert {round(float(value), 9) for value in np.unique(masks[k])} == {0.0, 2.0}
            plain.params[k][...] = used
        assert not bool((masks[1] == masks[4]).all())
        same(hs, plain.forward(xs))
        same(layer.backward(dhs), plain.backward(dhs))
        for got, want, mask in zip(layer.grads, plain.grads, masks, strict=True):
            close(got, want * mask)


class DroppingCell(Layer):
    """h = h_prev + what a dropout inside leaves of x."""

    state_sizes = (D,)

    def __init__(self):
        super().__init__()
        self.dropout = TimeDropout(0.5, rng=generator(3))

    def forward(self, x, h_prev):
        return h_prev + self.dropout.forward(x[:, None])[:, 0]

    def backward(self, dh):
        return self.dropout.backward(dh[:, None])[:, 0], dh


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeBidirectional(weight_dropped(), weight_dropped(seed=4)),
        lambda: TimeWeightDrop(TimeStack(D, H, 2, dropout=0.5, rng=generator(3)), 0.5),
        lambda: TimeCellInputs(TimeCell(DroppingCell())),
        lambda: TimeStack(D, D, 2, cell=lambda *_: DroppingCell(), bidirectional=False),
        lambda: TimeCell(DroppingCell()),
    ],
)
def test_a_layer_inside_another_drops_nothing_in_evaluation_and_drops_again_in_training(make):
    layer, xs = make(), floats(generator(5), N, T, D)

    def twice():
        for _ in range(2):
            layer.reset_state()
            yield np.array(layer.forward(xs))

    for train_flg in (False, True, False):
        layer.train_flg = train_flg
        first, second = twice()
        assert bool((first == second).all()) is not train_flg


@pytest.mark.parametrize("make", [lambda: TimeEmbedding(np.ones((V, D))), lambda: "TimeLSTM"])
def test_a_layer_that_is_not_recurrent_is_refused(make):
    wrong = make()
    with pytest.raises(TypeError, match=f"^TimeWeightDrop: .*got {type(wrong).__name__}"):
        TimeWeightDrop(wrong, 0.5)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_that_leaves_nothing_is_refused_by_name(ratio):
    with pytest.raises(ValueError, match=r"^TimeWeightDrop: expected a dropout ratio in \[0, 1\)"):
        weight_dropped(ratio=ratio)
