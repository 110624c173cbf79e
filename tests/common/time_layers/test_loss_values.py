"""The loss of scores that are large, certain or banned, beside the one in float64."""

import numpy as np
import pytest

from common.time_layers import TimeAffine, TimeOutputWithLoss, TimeSoftmaxWithLoss


@pytest.mark.parametrize("scale", [1, 30, 1000])
@pytest.mark.parametrize("V", [1, 7, 1000])
def test_the_loss_of_a_certain_prediction_is_0_or_more_and_near_that_in_float64(scale, V):
    rng = np.random.default_rng(1)
    W = (scale * rng.normal(size=(16, V))).astype("float32")
    hs = np.tanh(rng.normal(size=(2, 5, 16))).astype("float32")
    scores = hs.astype("float64") @ W
    right = np.log(np.exp(scores - scores.max(axis=2, keepdims=True)).sum(axis=2)).mean()
    layer = TimeOutputWithLoss(TimeAffine(W, np.zeros(V, "float32")))
    for train_flg in (True, False):
        layer.train_flg = train_flg
        loss = layer.forward(hs, scores.argmax(axis=2))
        assert loss >= 0
        assert abs(loss - right) < 1e-4


@pytest.mark.parametrize("ignore", [-1, 0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_banned_class_does_not_spoil_the_mean_of_the_targets_that_count(ignore, dtype):
    rng = np.random.default_rng(0)
    ts = rng.integers(1, 7, (2, 3))
    ts[0, 1] = ignore
    hs, W, b = (rng.normal(size=s).astype(dtype) for s in ((2, 3, 5), (5, 7), (7,)))
    b[0] = -np.inf
    scores = hs.astype("float64") @ W + b
    log_p = scores - np.log(np.exp(scores).sum(axis=2, keepdims=True))
    right = -np.take_along_axis(log_p, ts[..., None], 2)[..., 0][ts != ignore].mean()
    output = TimeAffine(W, b)
    for layer, x in (
        (TimeSoftmaxWithLoss(ignore), output.forward(hs)),
        (TimeOutputWithLoss(output, ignore), hs),
    ):
        assert abs(layer.forward(x, ts) - right) < 1e-5
