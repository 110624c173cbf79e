"""The output layer, and the loss of classes over T steps."""

import math

import numpy
import pytest

from common.np import np
from common.time_layers import TimeAffine, TimeOutputWithLoss, TimeSoftmaxWithLoss
from tests.builders import H, N, T, V, close, floats, generator, ids, same

pytestmark = pytest.mark.usefixtures("backend")


# ---- scores ----


def test_an_affine_layer_is_one_product_at_every_step():
    rng = generator()
    W, b, xs, dys = floats(rng, H, V), floats(rng, V), floats(rng, N, T, H), floats(rng, N, T, V)
    layer = TimeAffine(W, b)
    close(layer.forward(xs), xs @ W + b)
    close(layer.backward(dys), dys @ W.T)
    close(layer.grads[0], sum(xs[:, t].T @ dys[:, t] for t in range(T)))
    close(layer.grads[1], dys.sum(axis=(0, 1)))


def test_an_affine_layer_on_a_transposed_view_writes_into_the_transposed_gradient():
    rng = generator()
    table, dtable = floats(rng, V, H), np.zeros((V, H))
    plain, tied = TimeAffine(table.T.copy(), np.zeros(V)), TimeAffine(table.T, np.zeros(V))
    tied.grads[0] = dtable.T
    xs, dys = floats(rng, N, T, H), floats(rng, N, T, V)
    for layer in (plain, tied):
        layer.forward(xs)
        layer.backward(dys)
    close(dtable, plain.grads[0].T)


# ---- loss ----


def naive_loss(xs, ts, ignore_label=-1):
    """Mean of -log softmax(xs)[t] over the targets that count, one by one, in Python's floats."""
    losses = []
    for n, t in numpy.ndindex(ts.shape):
        if int(ts[n, t]) != ignore_label:
            row = [float(x) for x in xs[n, t]]
            most = max(row)
            log_sum = most + math.log(math.fsum(math.exp(x - most) for x in row))
            losses.append(log_sum - row[int(ts[n, t])])
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
@pytest.mark.parametrize("ignored", [[], [(0, 0)], [(0, 1), (1, 0), (1, 2)]])
def test_the_loss_is_the_mean_over_the_targets_that_count(ignored, dtype, tolerance):
    rng = generator()
    xs, ts = 3 * floats(rng, N, T, V, dtype=dtype), ids(rng, V, N, T)
    for place in ignored:
        ts[place] = -1
    layer = TimeSoftmaxWithLoss()
    assert float(layer.forward(xs, ts)) == pytest.approx(naive_loss(xs, ts), rel=tolerance)


def test_targets_that_are_ignored_have_no_gradient_and_the_others_share_it():
    rng = generator()
    xs, ts = floats(rng, N, T, V), ids(rng, V, N, T)
    ts[0, 1] = ts[1, 2] = -1
    layer = TimeSoftmaxWithLoss()
    layer.forward(xs, ts)
    dxs = layer.backward()
    for place in ((0, 1), (1, 2)):
        same(dxs[place], np.zeros(V))
    p = np.exp(xs) / np.exp(xs).sum(axis=2, keepdims=True)
    expected = (p[0, 0] - np.eye(V)[int(ts[0, 0])]) / (N * T - 2)
    close(dxs[0, 0], expected)
    close(layer.backward(2.0), 2 * dxs)


def test_the_label_to_ignore_can_be_a_word():
    rng = generator()
    xs, ts = floats(rng, N, T, V), np.array([[0, 3, 3], [1, 2, 3]])
    layer = TimeSoftmaxWithLoss(ignore_label=3)
    assert float(layer.forward(xs, ts)) == pytest.approx(naive_loss(xs, ts, 3), rel=1e-13)
    same(layer.backward()[0, 1], np.zeros(V))


def test_one_hot_targets_are_the_same_as_ids():
    rng = generator()
    xs, ts = floats(rng, N, T, V), ids(rng, V, N, T)
    layer = TimeSoftmaxWithLoss()
    loss, dxs = layer.forward(xs, ts), layer.backward()
    same(layer.forward(xs, np.eye(V)[ts]), loss)
    same(layer.backward(), dxs)


def test_targets_that_are_all_ignored_cost_nothing():
    layer = TimeSoftmaxWithLoss()
    assert float(layer.forward(floats(generator(), N, T, V), np.full((N, T), -1))) == 0
    same(layer.backward(), np.zeros((N, T, V)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e3, 1e4])
def test_a_loss_of_huge_scores_is_huge_and_finite(size, dtype):
    xs = np.array([[[size, 0, 0], [size, 0, -size]]], dtype=dtype)
    layer = TimeSoftmaxWithLoss()
    assert float(layer.forward(xs, np.array([[0, 2]]))) == size  # the mean of 0 and 2 size
    same(layer.backward(), np.array([[[0, 0, 0], [0.5, 0, -0.5]]], dtype=dtype))


@pytest.mark.parametrize("size", [1, 1e4])  # without and with a shift
def test_the_losses_and_scores_of_every_target_make_the_loss_of_an_evaluation(size):
    rng = generator()
    xs, ts = size * floats(rng, N, T, H), ids(rng, V, N, T)
    ts[0, 1] = -1
    output = TimeAffine(floats(rng, H, V), floats(rng, V))
    layer = TimeOutputWithLoss(output)
    losses, scores = layer.losses_and_scores(xs, ts)
    close(scores.reshape(T, N, V).swapaxes(0, 1), output.forward(xs))
    by_target = losses.reshape(T, N).T
    assert float(by_target[0, 1]) == 0
    layer.train_flg = False
    close(losses.sum() / (N * T - 1), layer.forward(xs, ts))
    with pytest.raises(RuntimeError, match="no forward pass in training mode"):
        layer.backward()
