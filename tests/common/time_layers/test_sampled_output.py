"""A softmax over a sample of the classes: the whole one in the mean, and where all are drawn."""

import math

import numpy as np
import pytest

from common.masks import Masks
from common.perplexity.dynamic_evaluation import eval_perplexity_dynamic
from common.time_layers import TimeAffine, TimeOutputWithLoss, TimeSampledOutputWithLoss
from common.time_layers.sampled_output import inclusion_probabilities
from common.util import eval_perplexity_exact
from models import AwdRnnlm
from tests.builders import close, floats, generator, ids, same

N, T, H, V = 2, 3, 5, 40


def both(rng, num_classes, dtype="float64", ignore_label=-1, tied=False):
    """The whole and the sampled loss of output layers with the same weights, inputs and targets."""
    W = floats(rng, V, H, dtype=dtype).T if tied else floats(rng, H, V, dtype=dtype)
    b = floats(rng, V, dtype=dtype)
    whole = TimeOutputWithLoss(TimeAffine(W, b), ignore_label)
    sampled = TimeSampledOutputWithLoss(TimeAffine(W, b), num_classes, 3, ignore_label)
    return whole, sampled, floats(rng, N, T, H, dtype=dtype), ids(rng, V, N, T)


def gradients(layer, dout=1):
    return [layer.backward(dout), *map(np.array, layer.output.grads)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_where_every_class_is_drawn_it_is_the_whole_softmax(tied, dtype, tolerance):
    whole, sampled, xs, ts = both(generator(), V, dtype, tied=tied)
    close(sampled.forward(xs, ts), whole.forward(xs, ts), tolerance)
    for a, b in zip(gradients(sampled, 0.7), gradients(whole, 0.7), strict=True):
        assert a.dtype == b.dtype
        close(a, b, tolerance)


def test_in_the_mean_the_sum_is_that_of_the_whole_softmax():
    rng = generator(1)
    whole, sampled, xs, ts = both(rng, 8)
    sampled.set_counts(rng.integers(0, 50, V))
    xs, ts = xs[:1, :1], ts[:1, :1]  # one row, whose loss is log(Z / exp(score of the target))
    ratio = math.exp(whole.forward(xs, ts))
    estimates = np.array([math.exp(sampled.forward(xs, ts)) for _ in range(4000)])
    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean() - ratio) < 4 * error
    assert error < 0.05 * ratio
    losses = np.log(estimates)
    assert losses.mean() < math.log(ratio)  # the logarithm is concave


def test_an_evaluation_and_a_training_that_does_not_sample_take_the_whole_softmax():
    whole, sampled, xs, ts = both(generator(), 8)
    right = whole.forward(xs, ts)
    assert abs(sampled.forward(xs, ts) - right) > 1e-3
    sampled.sampling = False
    same(sampled.forward(xs, ts), right)
    for a, b in zip(gradients(sampled), gradients(whole), strict=True):
        same(a, b)
    sampled.sampling, sampled.train_flg = True, False
    same(sampled.forward(xs, ts), right)
    with pytest.raises(RuntimeError, match="no forward pass in training mode"):
        sampled.backward()


def test_a_sample_depends_on_seed_and_pass_alone():
    _, one, xs, ts = both(generator(), 8)
    _, two, _, _ = both(generator(), 8)
    first, second = one.forward(xs, ts), one.forward(xs, ts)
    assert first != second
    two.masks.passes = 1
    same(two.forward(xs, ts), second)
    drawn = Masks(3).drawn(one.inclusion)
    assert np.all(np.diff(drawn) > 0) and drawn.dtype == np.int64


def test_going_back_twice_gives_the_same_gradients_and_changes_nothing():
    _, sampled, xs, ts = both(generator(), 8)
    sampled.forward(xs, ts)
    for a, b in zip(gradients(sampled), gradients(sampled), strict=True):
        same(a, b)


def test_scores_of_classes_that_were_not_drawn_have_no_gradient():
    _, sampled, xs, ts = both(generator(), 4)
    sampled.forward(xs, ts)
    _, dW, db = gradients(sampled)
    seen = {*Masks(3).drawn(sampled.inclusion).tolist(), *ts.reshape(-1).tolist()}
    assert {*np.flatnonzero(db)} == {*np.flatnonzero(dW.any(axis=0))} == seen


def test_targets_that_are_ignored_count_for_nothing():
    _, sampled, xs, ts = both(generator(), 8)
    ts[0, 1] = -1
    loss = sampled.forward(xs, ts)
    dxs, *_ = gradients(sampled)
    assert not dxs[0, 1].any() and dxs[0, 0].any()
    sampled.masks.passes = 0
    xs[0, 1] = 100
    close(sampled.forward(xs, ts), loss, 1e-12)
    assert sampled.forward(xs, np.full_like(ts, -1)) == 0
    assert not any(gradient.any() for gradient in gradients(sampled))


@pytest.mark.parametrize("scale", [30, 1000, 3e37])
def test_large_scores_stay_finite_and_no_loss_is_below_0(scale):
    whole, sampled, xs, _ = both(generator(), 8, "float32")
    scores = xs @ (scale * whole.output.params[0])
    sampled.output.params[0] *= np.float32(scale)
    for ts in (scores.argmax(axis=2), scores.argmin(axis=2)):
        loss = sampled.forward(xs, ts)
        assert 0 <= loss < np.inf
        assert all(np.isfinite(gradient).all() for gradient in gradients(sampled))


class TestInclusion:
    @pytest.mark.parametrize("num_classes", [1, 2, 10, 39.5])
    def test_their_sum_is_the_number_of_classes(self, num_classes):
        p = inclusion_probabilities(generator().random(V) ** 4, num_classes)
        assert p.sum() == pytest.approx(num_classes)
        assert p.min() >= 0 and p.max() == 1

    def test_below_1_they_are_proportional_to_the_weights(self):
        weights = np.array([100.0, 4.0, 2.0, 1.0, 1.0])
        p = inclusion_probabilities(weights, 3)
        close(p, [1, 1, 0.5, 0.25, 0.25], 1e-12)

    @pytest.mark.parametrize("num_classes", [V, 10 * V])
    def test_where_there_are_no_more_classes_all_are_certain(self, num_classes):
        same(inclusion_probabilities(generator().random(V), num_classes), np.ones(V))

    def test_frequent_classes_are_drawn_with_the_root_of_their_count(self):
        _, sampled, _, _ = both(generator(), 4)
        close(sampled.inclusion[1:], np.full(V - 1, 3 / (V - 1)), 1e-12)
        counts = np.zeros(V)
        counts[:3] = 99, 24, 3
        sampled.set_counts(counts)
        rest = (4 - 1) / (5 + 2 + 37)
        close(sampled.inclusion[:4], [1, 5 * rest, 2 * rest, rest], 1e-12)
        assert np.mean([0 in Masks(k).drawn(sampled.inclusion) for k in range(50)]) == 1
        often = np.mean([1 in Masks(k).drawn(sampled.inclusion) for k in range(2000)])
        assert abs(often - 5 * rest) < 0.05


class TestWhatIsRefused:
    def test_a_number_of_classes_below_one(self):
        with pytest.raises(ValueError, match="num_classes of 1 or more, got 0"):
            both(generator(), 0)

    @pytest.mark.parametrize("counts", [np.ones(V - 1), -np.ones(V), np.full(V, np.nan)])
    def test_counts_that_do_not_fit(self, counts):
        _, sampled, _, _ = both(generator(), 8)
        with pytest.raises(ValueError, match=f"set_counts: expected {V} counts of 0 or more"):
            sampled.set_counts(counts)

    def test_inputs_and_targets_that_do_not_fit(self):
        _, sampled, xs, ts = both(generator(), 8)
        with pytest.raises(ValueError, match=r"TimeSampledOutputWithLoss: expected xs of shape"):
            sampled.forward(xs[..., 1:], ts)
        with pytest.raises(ValueError, match=f"expected ts in 0..{V - 1}, got {V}"):
            sampled.forward(xs, np.full_like(ts, V))


class TestModel:
    def model(self, **options):
        off = dict.fromkeys(("embed_dropout", "input_dropout", "hidden_dropout"), 0.0)
        off |= dict.fromkeys(("output_dropout", "weight_drop", "alpha", "beta"), 0.0)
        return AwdRnnlm(V, H, H, 1, rng=1, **off | options)

    def test_its_other_masks_and_weights_are_those_of_the_model_that_does_not_sample(self):
        whole, sampled = (self.model(input_dropout=0.5, sampled_classes=k) for k in (0, 8))
        for a, b in zip(whole.params, sampled.params, strict=True):
            same(a, b)
        ours, theirs = whole.masks(), sampled.masks()
        assert [(m.seed, m.layer) for m in theirs[:-1]] == [(m.seed, m.layer) for m in ours]
        assert theirs[-1].layer == len(ours)

    def test_it_is_measured_with_the_whole_softmax(self):
        whole, sampled = (self.model(sampled_classes=k) for k in (0, 8))
        text = ids(generator(), V, 60)
        for measure in (
            lambda model: eval_perplexity_exact(model, text, 0),
            lambda model: eval_perplexity_dynamic(model, text, 0, lr=0.1),
        ):
            same(measure(sampled), measure(whole))
        assert sampled.loss_layer.sampling
        assert sampled.masks()[0].passes == 0
