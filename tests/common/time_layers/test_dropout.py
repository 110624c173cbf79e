"""Dropout over T steps."""

import pytest

from common.np import np
from common.time_layers import TimeDropout
from tests.builders import D, N, T, close, floats, generator, same

pytestmark = pytest.mark.usefixtures("backend")


def test_dropout_changes_nothing_in_evaluation_and_has_no_way_back_from_there():
    layer, xs = TimeDropout(0.5), floats(generator(), N, T, D)
    layer.forward(xs)
    layer.train_flg = False
    same(layer.forward(xs), xs)
    with pytest.raises(RuntimeError, match=r"^TimeDropout\.backward"):
        layer.backward(xs)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_dropout_keeps_the_expected_share_and_the_expected_sum(ratio):
    layer, xs = TimeDropout(ratio, rng=generator()), np.ones((20, 30, 40))
    ys = layer.forward(xs)
    assert float((ys == 0).mean()) == pytest.approx(ratio, abs=0.01)
    assert float(ys.mean()) == pytest.approx(1, abs=0.02)
    close(ys[ys != 0], np.full(int((ys != 0).sum()), 1 / (1 - ratio)), 1e-6)
    same(layer.backward(xs), ys)


def test_plain_dropout_draws_a_mask_for_every_step():
    ys = TimeDropout(0.5, rng=generator()).forward(np.ones((N, T, 50)))
    assert not bool((ys[:, 0] == ys[:, 1]).all())


def test_variational_dropout_shares_one_mask_over_the_steps_but_not_over_windows():
    layer, xs = TimeDropout(0.5, variational=True, rng=generator()), np.ones((N, T, 50))
    ys = layer.forward(xs)
    assert 0 < float((ys == 0).mean()) < 1
    for t in range(T):
        same(ys[:, t], ys[:, 0])
    assert not bool((ys[0] == ys[1]).all())  # each sequence has its own
    dxs = layer.backward(xs)
    same(dxs, ys)
    assert not bool((layer.forward(xs) == ys).all())


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_of_one_seed_drops_the_same_values(variational):
    xs = np.ones((N, T, 50))
    first, second = (TimeDropout(0.5, variational, generator(4)) for _ in range(2))
    for _ in range(2):
        same(first.forward(xs), second.forward(xs))
    assert not bool((TimeDropout(0.5, variational, generator(5)).forward(xs) == 0).all())


def test_evaluation_draws_nothing_from_the_generator():
    xs = np.ones((N, T, 50))
    first, second = (TimeDropout(0.5, rng=generator(4)) for _ in range(2))
    first.train_flg = False
    first.forward(xs)
    first.train_flg = True
    same(first.forward(xs), second.forward(xs))
