"""Losses of numbers over T steps."""

import pytest

from common.np import np
from common.time_layers import TimeSigmoidWithLoss
from tests.builders import N, T, close, floats, generator, ids

pytestmark = pytest.mark.usefixtures("backend")


def test_the_sigmoid_loss_is_the_mean_binary_cross_entropy_over_all_steps():
    rng = generator()
    xs, ts = floats(rng, N, T), ids(rng, 2, N, T)
    layer = TimeSigmoidWithLoss()
    p = 1 / (1 + np.exp(-xs))
    naive = -np.where(ts == 1, np.log(p), np.log(1 - p)).mean()
    assert float(layer.forward(xs, ts)) == pytest.approx(float(naive), rel=1e-12)
    close(layer.backward(), (p - ts) / (N * T))
