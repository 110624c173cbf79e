"""PyTorch does the work that Time Layers does, in every setting that is tried."""

from dataclasses import replace

import numpy as np
import pytest

from common.base_layer import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.optimizer import UniqueParameters
from common.util import eval_perplexity, eval_perplexity_exact
from tests.train.benchmark.small_models import (
    ADAPTIVE,
    BOTH,
    ENDS,
    SMALL,
    model_of,
    some_ids,
    two_windows,
)
from train.benchmark import time_layers


@pytest.fixture
def pytorch():
    """The side of PyTorch; its threads and oneDNN are left as they were."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    from train.benchmark import pytorch

    threads = torch.get_num_threads()
    yield pytorch
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = True


def side_of(pytorch, sizes, model):
    """PyTorch's side with the weights of ``model``."""
    import torch

    side = pytorch.Side(sizes, some_ids(), 1)
    weights = model.named_params()

    def copy(target, *source):
        target.data.copy_(torch.from_numpy(np.ascontiguousarray(*source)))

    if not sizes.tied:
        copy(side.network.embedding.weight, weights["embedding.W"])
    gates = (LSTM_GATES, TORCH_LSTM_GATES) if sizes.cell == "LSTM" else ("rzn", "rzn")
    for k in range(sizes.L):
        layer = f"{sizes.cell.lower()}{k + 1 if sizes.L > 1 else ''}"
        for own, other in (("Wx", "weight_ih"), ("Wh", "weight_hh"), ("b", "bias_ih")):
            weight = reorder_gates(weights[f"{layer}.{own}"], *gates).T
            copy(getattr(side.network.rnn, f"{other}_l{k}"), weight)
        # The second bias of PyTorch says nothing new, but doubles the bias's step.
        getattr(side.network.rnn, f"bias_hh_l{k}").requires_grad_(False).zero_()
    if sizes.cutoffs:
        output = model.layers[-1]
        copy(side.network.output.head.weight, output.params[0].T)
        copy(side.network.output.head.bias, output.params[1])
        for k, (projection, words) in enumerate(side.network.output.tail, start=1):
            copy(projection.weight, output.params[3 * k - 1].T)
            copy(words.weight, output.params[3 * k].T)
        return side
    if sizes.model == "Rnnlm":
        copy(side.network.output.weight, weights["affine.W"].T)
    copy(side.network.output.bias, weights["affine.b"])
    return side


@ENDS
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("time_major", [True, False])
def test_the_same_weights_give_the_same_loss_in_every_layout(pytorch, sizes, cell, time_major):
    import torch

    sizes = replace(sizes, cell=cell)
    model = model_of(sizes, "float32")
    side = side_of(pytorch, sizes, model)
    side.apply(replace(side.settings, time_major=time_major))
    state = None
    for xs, ts in zip(*two_windows(sizes), strict=True):
        loss, state = side.loss(torch.from_numpy(xs), torch.from_numpy(ts), state)
        assert loss.item() == pytest.approx(float(model.forward(xs, ts)), rel=1e-5)


@BOTH
def test_its_steps_change_the_weights_as_time_layers_does(pytorch, sizes):
    own = time_layers.Side(sizes, some_ids(), 1)
    own.model = own.trainer.model = model_of(sizes, "float32")
    side = side_of(pytorch, sizes, own.model)
    for sgd in ("fused", "foreach", "single"):
        side.apply(replace(side.settings, sgd=sgd, clip_foreach=sgd == "foreach"))
        own.step(2)
        side.step(2)
        np.testing.assert_allclose(
            side.network.embedding.weight.detach().numpy(),
            UniqueParameters(own.model.params, own.model.grads).params[0],
            rtol=1e-4,
            atol=1e-5,
        )


@BOTH
def test_both_protocols_give_the_same_perplexity(pytorch, sizes):
    model = model_of(sizes, "float32")
    side = side_of(pytorch, sizes, model)
    ids = some_ids()
    exact = eval_perplexity_exact(model, ids.test[:70], ids.first_id)
    assert side.exact(70) == pytest.approx(exact, rel=1e-5)
    side.apply(replace(side.settings, window=32, onednn=False))
    assert side.exact(70) == pytest.approx(exact, rel=1e-5)
    of_book = eval_perplexity(model, ids.test[:701], 10, 35)
    assert side.book_protocol(700) == pytest.approx(of_book, rel=1e-5)


@BOTH
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_cells_and_windows_of_one_step_draw_the_same_text(pytorch, sizes, cell):
    import torch

    sizes = replace(sizes, cell=cell)
    side = side_of(pytorch, sizes, model_of(sizes, "float32"))
    texts = []
    for cells in (False, True):
        side.apply(replace(side.settings, cells=cells))
        torch.manual_seed(5)
        texts.append(side.generation(20))
    assert texts[0] == texts[1]
    assert len(texts[0]) == 21 and texts[0][0] == 3


def frozen_biases(model):
    """The model, in which the biases of clusters, which PyTorch does not have, do not learn."""
    backward = model.backward

    def without():
        backward()
        for part in model.layers[-1].parts[1:]:
            part.grads[1][...] = 0

    model.backward = without
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_steps_of_an_adaptive_softmax_change_the_weights_alike(pytorch, tied, sparse):
    sizes = replace(ADAPTIVE, tied=tied)
    own = time_layers.Side(sizes, some_ids(), 1)
    own.model = own.trainer.model = frozen_biases(model_of(sizes, "float32"))
    side = side_of(pytorch, sizes, own.model)
    side.apply(replace(side.settings, sparse=sparse and not tied))
    own.step(3)
    side.step(3)
    output, theirs = own.model.layers[-1], side.network.output
    pairs = [(output.params[0], theirs.head.weight), (output.params[3], theirs.tail[0][1].weight)]
    pairs += [(output.params[5], theirs.tail[1][0].weight)]
    if not tied:
        pairs.append((own.model.layers[0].params[0].T, side.network.embedding.weight))
    for ours, weight in pairs:
        np.testing.assert_allclose(ours.T, weight.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_sparse_gradients_are_tried_where_there_are_many_words(pytorch):
    many = replace(SMALL, V=pytorch.MANY_WORDS)
    for sizes, tried in ((SMALL, False), (many, True)):
        assert ("sparse" in pytorch.Side(sizes, some_ids(), 1)._choices("step")) == tried


def test_tuning_keeps_the_fastest_of_every_setting(pytorch, monkeypatch):
    side = pytorch.Side(SMALL, some_ids(), 4)
    costs = {
        "threads": {4: 3, 2: 1, 1: 2},
        "onednn": {True: 2, False: 1},
        "time_major": {True: 1, False: 2},
        "sgd": {"fused": 2, "foreach": 1, "single": 2},
        "clip_foreach": {True: 1, False: 2},
    }
    monkeypatch.setattr(
        side,
        "_seconds",
        lambda kind, count, tries: sum(
            cost[getattr(side.settings, name)] for name, cost in costs.items()
        ),
    )
    best = {"threads": 2, "onednn": False, "time_major": True, "sgd": "foreach"}
    assert side.tune("step", 1, 1) == {**best, "clip_foreach": True}


def test_products_of_both_sides_have_the_shape_asked_for(pytorch):
    for side in (time_layers, pytorch):
        assert tuple(side.make_product(2, 3, 5)().shape) == (2, 5)
