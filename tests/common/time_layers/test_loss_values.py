"""The loss of scores that are large, certain or banned, beside the one in float64."""

import numpy as np
import pytest

from common.layers import SigmoidWithLoss, SoftmaxWithLoss
from common.time_layers import (
    TimeAffine,
    TimeMeanSquaredError,
    TimeOutputWithLoss,
    TimeSoftmaxWithLoss,
)


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


def scores_as_wide_as_float32_is(V=7):
    """Scores (2, 3, V) of float32, the distance of whose ends no float32 holds."""
    return np.random.default_rng(1).uniform(-3.4e38, 3.4e38, (2, 3, V)).astype("float32")


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of the scores that underflow
def test_the_loss_of_finite_scores_is_finite_however_far_they_lie_apart():
    scores = scores_as_wide_as_float32_is()
    ts = scores.argmin(axis=2)
    right = (scores.max(axis=2).astype("float64") - scores.min(axis=2)).mean()
    assert right > np.finfo("float32").max
    hs, W = np.eye(6, dtype="float32").reshape(2, 3, 6), scores.reshape(6, -1)
    for layer, x in (
        (TimeSoftmaxWithLoss(), scores),
        (TimeOutputWithLoss(TimeAffine(W, np.zeros(7, "float32"))), hs),
    ):
        np.testing.assert_allclose(layer.forward(x, ts), right, rtol=1e-6)
        assert np.isfinite(layer.backward()).all()


@pytest.mark.parametrize("layer_class", [SoftmaxWithLoss, SigmoidWithLoss])
def test_the_mean_of_large_losses_is_no_larger_than_they_are(layer_class):
    x = np.zeros((9, 2), dtype="float32")
    x[:, 0] = 2e38
    targets = {SoftmaxWithLoss: np.ones(9, int), SigmoidWithLoss: np.zeros((9, 2), "float32")}
    right = {SoftmaxWithLoss: 2e38, SigmoidWithLoss: 1e38}[layer_class]
    np.testing.assert_allclose(layer_class().forward(x, targets[layer_class]), right, rtol=1e-6)


@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_the_square_of_an_error_may_lie_outside_float32(size):
    xs = np.full((2, 3, 4), size, dtype="float32")
    loss = TimeMeanSquaredError().forward(xs, np.zeros_like(xs))
    np.testing.assert_allclose(loss, size**2, rtol=1e-6)


def test_no_scores_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^SigmoidWithLoss: expected scores, got shape \(0, 3\)"):
        SigmoidWithLoss().forward(np.zeros((0, 3)), np.zeros((0, 3)))
