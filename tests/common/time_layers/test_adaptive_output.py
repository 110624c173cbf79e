"""The adaptive softmax: probabilities of all words, and a loss that reads what it needs."""

import copy
import pickle

import numpy
import pytest

from common.np import np, to_cpu
from common.time_layers import (
    TimeAdaptiveOutput,
    TimeAdaptiveOutputWithLoss,
    TimeAffine,
    TimeOutputWithLoss,
)
from common.time_layers.clusters import WordClusters
from tests.builders import close, floats, generator, ids, same

N, T, H, V = 3, 4, 6, 23
CUTOFFS = pytest.mark.parametrize("cutoffs", [(5, 12), (1, 2, 3), (9,), (V - 1,)])
on_both = pytest.mark.usefixtures("backend")


def adaptive(cutoffs=(5, 12), dtype="float64", V=V, H=H, seed=0):
    """An output layer whose words are in a drawn order, and whose weights are far from zero."""
    rng = generator(seed)
    clusters = WordClusters(V, cutoffs)
    clusters.set_counts(rng.permutation(V))
    output = TimeAdaptiveOutput.build(H, clusters, rng, dtype)
    for param in output.params:
        param[...] = floats(rng, *param.shape, dtype=dtype)
    return output


def with_targets(output, dtype="float64", ignore_label=-1):
    """Its loss layer, inputs (N, T, H) and targets of which most clusters have one."""
    rng = generator(1)
    H, V = len(output.params[0]), output.num_classes
    return (
        TimeAdaptiveOutputWithLoss(output, ignore_label),
        floats(rng, N, T, H, dtype=dtype),
        rng.integers(0, V, (N, T)),
    )


def of_cluster(output, number):
    """The ids in a cluster."""
    numbers, _ = output.clusters.places(numpy.arange(output.num_classes))
    return numpy.flatnonzero(numbers == number)


def gradients(layer, dout=1):
    return [layer.backward(dout), *map(np.array, layer.output.grads)]


# ---- probabilities ----


@on_both
@CUTOFFS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])
def test_the_probabilities_of_all_words_add_up_to_one(cutoffs, dtype, tolerance):
    output = adaptive(cutoffs, dtype)
    log_p = output.forward(floats(generator(1), N, T, H, dtype=dtype))
    assert log_p.shape == (N, T, V) and log_p.dtype == dtype
    close(np.exp(log_p).sum(axis=2), np.ones((N, T), dtype), tolerance)


def test_a_word_has_the_probability_of_its_cluster_times_that_inside_it():
    output = adaptive()
    x = floats(generator(1), 1, 1, H)
    p = np.exp(output.forward(x)[0, 0])
    W0, b0, P1, W1, b1, P2, W2, b2 = output.params

    def softmax(scores):
        return np.exp(scores) / np.exp(scores).sum()

    head = softmax(x[0, 0] @ W0 + b0)
    inside = [softmax(x[0, 0] @ P @ W + b) for P, W, b in ((P1, W1, b1), (P2, W2, b2))]
    by_rank = np.concatenate([head[:5], head[5] * inside[0], head[6] * inside[1]])
    for word, rank in enumerate(output.clusters.ranks):
        close(p[word], by_rank[rank])


def test_large_scores_give_no_overflow():
    output = adaptive(dtype="float32")
    for param in output.params:
        param *= 100
    layer, xs, ts = with_targets(output, "float32")
    assert np.isfinite(output.forward(xs)).all()
    assert np.isfinite(layer.forward(xs, ts))
    assert all(np.isfinite(gradient).all() for gradient in gradients(layer))


@on_both
def test_a_bias_of_log_probabilities_is_that_distribution_where_the_scores_are_zero():
    output = adaptive()
    p = generator(2).dirichlet(numpy.ones(V))
    for k, param in enumerate(output.params):
        if output.param_names[k][0] != "b":
            param[...] = 0
    output.set_bias(numpy.log(p))
    close(np.exp(output.forward(floats(generator(1), N, T, H)))[1, 2], np.asarray(p))


# ---- loss ----


@on_both
@CUTOFFS
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_loss_is_the_mean_of_the_log_probabilities_of_the_targets(cutoffs, dtype, tolerance):
    layer, xs, ts = with_targets(adaptive(cutoffs, dtype), dtype)
    ts[0, 1] = ts[2, 3] = -1
    log_p = to_cpu(layer.output.forward(xs))
    wanted = [-log_p[n, t, ts[n, t]] for n, t in numpy.ndindex(N, T) if ts[n, t] >= 0]
    for train_flg in (True, False):
        layer.train_flg = train_flg
        assert float(layer.forward(xs, ts)) == pytest.approx(numpy.mean(wanted), rel=tolerance)


@on_both
@CUTOFFS
def test_its_gradients_are_those_of_the_log_probabilities(cutoffs):
    layer, xs, ts = with_targets(adaptive(cutoffs))
    ts[1, 0] = -1
    layer.forward(xs, ts)
    dxs, *of_loss = gradients(layer, 0.7)
    output = layer.output
    output.forward(xs)
    dlog_p = numpy.zeros((N, T, V))
    for n, t in numpy.ndindex(N, T):
        if ts[n, t] >= 0:
            dlog_p[n, t, ts[n, t]] = -0.7 / (N * T - 1)
    close(output.backward(np.asarray(dlog_p)), dxs)
    for got, want in zip(output.grads, of_loss, strict=True):
        close(got, want)


@on_both
def test_a_cluster_that_is_no_target_has_no_gradient_and_is_not_read():
    output = adaptive()
    layer, xs, _ = with_targets(output)
    present = np.asarray(of_cluster(output, 0)), np.asarray(of_cluster(output, 2))
    ts = np.concatenate(present)[: N * T].reshape(N, T)
    loss = float(layer.forward(xs, ts))
    for grad in output.grads:
        grad[...] = 99
    first = gradients(layer)
    named = dict(zip(output.param_names, output.grads, strict=True))
    for name in ("P1", "W1", "b1"):
        assert not to_cpu(named[name]).any()
    assert to_cpu(named["W0"]).any() and to_cpu(named["W2"]).any()
    for name, param in zip(output.param_names, output.params, strict=True):
        if name.endswith("1"):
            param[...] = np.nan  # whoever reads it shows it
    assert float(layer.forward(xs, ts)) == loss
    for got, want in zip(gradients(layer), first, strict=True):
        same(got, want)


def test_where_every_word_is_in_the_head_but_one_it_is_the_dense_softmax_with_one_class_more():
    output = adaptive((V - 1,))
    layer, xs, ts = with_targets(output)
    W0, b0 = output.params[:2]
    dense = TimeOutputWithLoss(TimeAffine(W0, b0))
    ranks = output.clusters.ranks[ts]  # the last word's is that of its cluster in the head
    close(layer.forward(xs, ts), dense.forward(xs, ranks))
    close(layer.backward(), dense.backward())
    close(layer.output.grads[0], dense.output.grads[0])


@on_both
def test_going_back_twice_gives_the_same_and_changes_nothing():
    layer, xs, ts = with_targets(adaptive(dtype="float32"), "float32")
    layer.forward(xs, ts)
    held = copy.deepcopy([xs, *layer.output.params])
    first = gradients(layer)
    for got, want in zip(gradients(layer), first, strict=True):
        same(got, want)
    for got, want in zip([xs, *layer.output.params], held, strict=True):
        same(got, want)


def test_a_second_window_overwrites_the_first():
    layer, xs, ts = with_targets(adaptive())
    layer.forward(xs, ts)
    fresh = gradients(layer)
    layer.forward(2 * xs[:, :2], ts[:, ::-1][:, :2])
    gradients(layer)
    layer.forward(xs, ts)
    for got, want in zip(gradients(layer), fresh, strict=True):
        same(got, want)


@on_both
def test_targets_that_are_ignored_count_for_nothing():
    layer, xs, ts = with_targets(adaptive(), ignore_label=3)
    ts[0, 1] = 3
    loss = float(layer.forward(xs, ts))
    dxs, *_ = gradients(layer)
    for n, t in numpy.ndindex(N, T):
        assert bool(to_cpu(dxs)[n, t].any()) == (int(ts[n, t]) != 3)
    xs[0, 1] = 100
    assert float(layer.forward(xs, ts)) == pytest.approx(loss, rel=1e-12)
    assert float(layer.forward(xs, numpy.full_like(ts, 3))) == 0
    assert not any(to_cpu(gradient).any() for gradient in gradients(layer))


@on_both
def test_the_losses_and_scores_of_every_target_make_the_loss_of_an_evaluation():
    layer, xs, ts = with_targets(adaptive())
    ts[0, 1] = -1
    layer.forward(xs, ts)  # of a training, which cannot go back any more
    losses, scores = layer.losses_and_scores(xs, ts)
    close(scores.reshape(T, N, V).swapaxes(0, 1), layer.output.forward(xs))
    by_target = to_cpu(losses).reshape(T, N).T
    assert by_target[0, 1] == 0
    with pytest.raises(RuntimeError, match="no forward pass in training mode"):
        layer.backward()
    layer.train_flg = False
    close(losses.sum() / (N * T - 1), layer.forward(xs, ts))


@on_both
def test_one_hot_targets_and_ids_on_a_device_are_the_same_as_ids(backend):
    layer, xs, ts = with_targets(adaptive())
    loss = layer.forward(xs, ts)
    same(layer.forward(xs, np.eye(V)[np.asarray(ts)]), loss)
    same(layer.forward(xs, np.asarray(ts)), loss)


def test_an_evaluation_cannot_go_back():
    layer, xs, ts = with_targets(adaptive())
    with pytest.raises(RuntimeError, match=r"^TimeAdaptiveOutputWithLoss\.backward"):
        layer.backward()
    layer.forward(xs, ts)
    layer.train_flg = False
    layer.forward(xs, ts)
    with pytest.raises(RuntimeError, match=r"^TimeAdaptiveOutputWithLoss\.backward"):
        layer.backward()


def test_compiled_and_numpy_give_the_same_for_many_rows_and_for_few(monkeypatch):
    """Of one cluster there are more rows than ``FEW_ROWS``, of the other fewer."""
    output = adaptive((40, 300), "float32", V=2000, H=32)
    for param in output.params:
        param *= 0.3
    xs = floats(generator(1), 8, 9, 32, dtype="float32")
    ts = generator(2).choice(of_cluster(output, 0), (8, 9))
    ts[:4, 1::2] = generator(3).choice(of_cluster(output, 1), (4, 4))
    ts[5, :3] = generator(3).choice(of_cluster(output, 2), 3)
    layer = TimeAdaptiveOutputWithLoss(output)
    found = []
    for switch in (None, lambda *arrays: None):
        if switch is not None:
            monkeypatch.setattr("common.kernels.library", switch)
        found.append([layer.forward(xs, ts), *gradients(layer)])
    for got, want in zip(*found, strict=True):
        close(np.asarray(got, dtype="float64"), np.asarray(want, dtype="float64"), 2e-5)


# ---- weights ----


def test_it_begins_with_a_variance_of_one_over_the_inputs_and_without_bias():
    output = TimeAdaptiveOutput.build(256, WordClusters(3000, (500, 1000)), generator(), "float32")
    named = dict(zip(output.param_names, output.params, strict=True))
    shapes = {"W0": (256, 502), "P1": (256, 64), "W1": (64, 500), "P2": (256, 16), "W2": (16, 2000)}
    assert {name: param.shape for name, param in named.items() if name[0] != "b"} == shapes
    for name, (inputs, _) in shapes.items():
        assert named[name].std() == pytest.approx(inputs**-0.5, rel=0.05)
    assert not any(named[name].any() for name in ("b0", "b1", "b2"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_the_same_words_in_the_same_order_and_weights_of_its_own(copied):
    layer, xs, ts = with_targets(adaptive())
    twin = copied(layer)
    assert twin.forward(xs, ts) == layer.forward(xs, ts)
    gradients(twin)
    assert twin.output.grads[3].any()
    assert not layer.output.grads[3].any()
    assert twin.output.constants["ranks"] is twin.output.clusters.ranks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "expected the parameters W0, b0, P1, .*, got 7"),
        (lambda p: [p[0][:, 1:], *p[1:]], r"expected W0 of shape \(H, 7\), got \(6, 6\)"),
        (lambda p: [*p[:2], p[2][1:], *p[3:]], r"expected P1 of shape \(6, d\), got \(5, 1\)"),
        (lambda p: [*p[:3], p[3][:, 1:], *p[4:]], r"expected W1 of shape \(1, 7\), got \(1, 6\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(change, message):
    output = adaptive()
    with pytest.raises(ValueError, match=f"^TimeAdaptiveOutput: {message}"):
        TimeAdaptiveOutput(output.clusters, *change(output.params))


def test_inputs_and_targets_that_do_not_fit_are_refused():
    layer, xs, ts = with_targets(adaptive())
    with pytest.raises(ValueError, match=r"^TimeAdaptiveOutputWithLoss: expected xs of shape"):
        layer.forward(xs[..., 1:], ts)
    with pytest.raises(ValueError, match=f"expected ts in 0..{V - 1}, got {V}"):
        layer.forward(xs, np.full_like(ts, V))
    with pytest.raises(ValueError, match=r"expected ts of shape \(3, 4\), got \(3, 3\)"):
        layer.forward(xs, ts[:, 1:])


# ---- beside PyTorch ----


@CUTOFFS
def test_it_is_torchs_adaptive_log_softmax_with_loss(cutoffs):
    """Of PyTorch's the clusters have no biases; ours are zero here, and begin so."""
    torch = pytest.importorskip("torch", reason="parity needs PyTorch; 'time-layers[bench]'")
    H = 64  # PyTorch has no cluster that is narrower than one
    rng, clusters = generator(5), WordClusters(V, cutoffs)
    output = TimeAdaptiveOutput.build(H, clusters, rng, "float64")
    output.params[1][...] = floats(rng, clusters.head_size)
    module = torch.nn.AdaptiveLogSoftmaxWithLoss(
        H, V, list(cutoffs), head_bias=True, dtype=torch.float64
    )
    places = [(module.head, output.params[0], 0), (module.head, output.params[1], 1)]
    for k, (projection, words) in enumerate(module.tail, start=1):
        places += [(projection, output.params[3 * k - 1], 3 * k - 1)]
        places += [(words, output.params[3 * k], 3 * k)]
    with torch.no_grad():
        for linear, param, _ in places:
            target = linear.bias if param.ndim == 1 else linear.weight
            target.copy_(torch.tensor(numpy.ascontiguousarray(param.T)))

    layer = TimeAdaptiveOutputWithLoss(output)
    for seed in (1, 2):
        xs, ts = floats(generator(seed), N, T, H), ids(generator(seed), V, N, T)
        inputs = torch.tensor(xs.reshape(N * T, H), requires_grad=True)
        module.zero_grad()
        found = module(inputs, torch.tensor(ts.reshape(-1)))
        found.loss.backward()
        close(layer.forward(xs, ts), found.loss.detach().numpy(), 1e-10)
        close(layer.backward().reshape(N * T, H), inputs.grad.numpy(), 1e-10)
        for linear, param, at in places:
            weight = linear.bias if param.ndim == 1 else linear.weight
            wanted = numpy.zeros(weight.shape) if weight.grad is None else weight.grad.numpy()
            close(output.grads[at], wanted.T, 1e-10)
        log_p = module.log_prob(inputs).detach().numpy()
        close(output.forward(xs).reshape(N * T, V), log_p, 1e-10)
