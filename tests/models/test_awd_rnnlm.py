"""Weight-dropped LSTM layers with penalties, one weight for input and output."""

import numpy as np
import pytest

from common.optimizer import SGD
from common.time_layers import (
    TimeActivationPenalty,
    TimeAffine,
    TimeDropout,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeWeightDrop,
)
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm
from tests.builders import D, H, N, T, V, awd_rnnlm, close, generator, ids, same

XS, TS = ids(generator(), V, N, T), ids(generator(1), V, N, T)
BOTH = pytest.mark.parametrize("projection", [False, True])


def strong(projection=False, **options):
    """Everything on, float64, and weights large enough for every part to matter."""
    options = {"num_layers": 3, "rng": 3, "dtype": "float64"} | options
    model = awd_rnnlm(0.4, projection=projection, **options)
    rng = generator(9)
    for param in model.params:
        param[...] = 0.7 * rng.standard_normal(param.shape)
    return model


# ---- which layers ----


def test_everything_stands_where_the_paper_has_it():
    model = strong(num_layers=2, output_dropout=0.3, alpha=2.0, beta=1.0)
    assert [type(layer) for layer in model.layers] == [
        TimeEmbedding,
        TimeDropout,
        TimeWeightDrop,
        TimeDropout,
        TimeWeightDrop,
        TimeActivationPenalty,  # of the last output before dropout: temporal
        TimeDropout,
        TimeActivationPenalty,  # and after
        TimeAffine,
    ]
    embedding, *dropouts = [layer for layer in model.layers if hasattr(layer, "dropout_ratio")]
    assert embedding.dropout_ratio == 0.4
    assert [layer.dropout_ratio for layer in dropouts] == [0.4, 0.4, 0.4, 0.4, 0.3]
    assert all(layer.variational for layer in model.layers if isinstance(layer, TimeDropout))
    penalties = [layer for layer in model.layers if isinstance(layer, TimeActivationPenalty)]
    assert [(layer.alpha, layer.beta) for layer in penalties] == [(0, 1.0), (2.0, 0)]
    assert [masks.layer for masks in model.masks()] == [0, 1, 2, 3, 4, 5]
    assert len({masks.seed for masks in model.masks()}) == 1


def test_a_ratio_of_zero_adds_no_layer():
    kinds = [type(layer) for layer in awd_rnnlm(0.0, num_layers=3).layers]
    assert kinds == [TimeEmbedding, TimeLSTM, TimeLSTM, TimeLSTM, TimeAffine]


@BOTH
def test_the_last_layer_is_as_narrow_as_the_tied_weight_or_is_projected(projection):
    shapes = {name: p.shape for name, p in strong(projection).named_params().items()}
    last = H if projection else D
    expected = {
        "embedding.W": (V, D),
        **{f"lstm{k}.Wx": (width, 4 * H) for k, width in [(1, D), (2, H)]},
        **{f"lstm{k}.Wh": (H, 4 * H) for k in (1, 2)},
        **{f"lstm{k}.b": (4 * H,) for k in (1, 2)},
        "lstm3.Wx": (H, 4 * last),
        "lstm3.Wh": (last, 4 * last),
        "lstm3.b": (4 * last,),
        **({"affine1.W": (H, D), "affine1.b": (D,), "affine2.b": (V,)} if projection else {}),
        **({} if projection else {"affine.b": (V,)}),
    }
    assert shapes == expected


def test_the_defaults_have_the_size_of_the_paper_with_one_bias_for_each_gate():
    widths = [(400, 1150), (1150, 1150), (1150, 400)]
    lstms = sum(4 * width * (inputs + width + 1) for inputs, width in widths)
    assert sum(param.size for param in AwdRnnlm().params) == 10_000 * 401 + lstms == 24_210_800


@BOTH
def test_the_tied_weight_is_one_array_with_one_gradient(projection):
    model = strong(projection)
    embedding, output = model.layers[0], model.layers[-1]
    assert np.shares_memory(embedding.params[0], output.params[0])
    assert np.shares_memory(embedding.grads[0], output.grads[0])
    assert sum(param is embedding.params[0] for param in model.params) == 1
    assert not any(param is output.params[0] for param in model.params)


def test_one_layer_without_regularization_is_embedding_lstm_and_tied_output():
    """Two such layers are BetterRnnlm without dropout, to the bit."""
    plain = awd_rnnlm(0.0, H, H, num_layers=2, rng=3)
    other = BetterRnnlm(V, H, H, 0.0, rng=3)
    for model in (plain, other):
        model.forward(XS, TS)
        model.backward()
    assert list(plain.named_params()) == list(other.named_params())
    for a, b in zip(plain.params + plain.grads, other.params + other.grads, strict=True):
        same(a, b)
    one = awd_rnnlm(0.0, H, H, num_layers=1)
    assert list(one.named_params()) == ["embedding.W", "lstm.Wx", "lstm.Wh", "lstm.b", "affine.b"]


def test_forget_gates_begin_at_their_bias_and_the_embedding_at_its_scale():
    model = AwdRnnlm(V, 300, 300, 2, forget_bias=1.5, embed_scale=0.1, rng=1)
    named = model.named_params()
    for name in ("lstm1.b", "lstm2.b"):
        same(named[name][:300], np.full(300, 1.5, dtype="float32"))
        assert not named[name][300:].any()
    assert named["embedding.W"].std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "AwdRnnlm: expected num_layers of 1 or more, got 0"),
        ({"num_layers": 1}, rf"AwdRnnlm: a single layer .* got {H} and {D}"),
        ({"embed_dropout": 1.0}, r"TimeEmbedding: expected a dropout ratio in \[0, 1\), got 1.0"),
        ({"input_dropout": -0.1}, r"TimeDropout: expected a dropout ratio in \[0, 1\), got -0.1"),
        ({"weight_drop": 1.5}, r"TimeWeightDrop: expected a dropout ratio in \[0, 1\), got 1.5"),
        ({"alpha": -1.0}, "TimeActivationPenalty: expected alpha of 0 or more, got -1.0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        AwdRnnlm(V, D, H, **options)


def test_one_wide_layer_may_be_projected():
    model = AwdRnnlm(V, D, H, 1, projection=True, rng=1)
    assert model.predict(XS).shape == (N, T, V)


def test_a_subclass_may_name_a_cell_without_a_forget_gate():
    class WithGRU(AwdRnnlm):
        cell = TimeGRU

    model = WithGRU(V, D, H, rng=1)
    model.forward(XS, TS)
    model.backward()
    assert [name for name in model.named_params() if name.startswith("gru3")]
    with pytest.raises(ValueError, match=r"^TimeGRU: expected forget_bias 0"):
        WithGRU(V, D, H, forget_bias=1.0)


# ---- training and evaluation ----


@BOTH
def test_evaluation_is_that_of_the_model_without_regularization(projection):
    model = strong(projection)
    plain = awd_rnnlm(0.0, projection=projection, num_layers=3, dtype="float64")
    for ours, theirs in zip(model.params, plain.params, strict=True):
        theirs[...] = ours
    for _ in range(2):
        same(model.forward(XS, TS, train_flg=False), plain.forward(XS, TS, train_flg=False))
        same(model.predict(XS), plain.predict(XS))
    assert model.generate(0, 9, rng=1) == plain.generate(0, 9, rng=1)
    assert [masks.passes for masks in model.masks()] == [0] * len(model.masks())


def test_weights_of_a_regularized_model_fit_the_plain_one(tmp_path):
    model, plain = strong(), awd_rnnlm(0.0, num_layers=3, dtype="float64")
    model.forward(XS, TS)  # the file holds the whole weights, not the dropped ones
    model.save_params(tmp_path / "weights.safetensors")
    plain.load_params(tmp_path / "weights.safetensors")
    for ours, theirs in zip(model.params, plain.params, strict=True):
        same(theirs, ours.astype("float32").astype("float64"))


def test_every_mask_is_drawn_once_for_a_window_and_anew_for_the_next():
    model, seen = strong(), []
    for _ in range(2):
        model.forward(XS, TS)
        dropouts = [layer for layer in model.layers if isinstance(layer, TimeDropout)]
        assert [layer.cache[0].shape[:2] for layer in dropouts] == [(N, 1)] * len(dropouts)
        drawing = [layer for layer in model.layers if hasattr(layer, "masks")]
        seen.append([layer.cache[1 if layer is model.layers[0] else 0] for layer in drawing])
    equal = [np.array_equal(first, second) for first, second in zip(*seen, strict=True)]
    assert len(equal) == 8 and sum(equal) <= 1  # the smallest mask may come up twice


def test_the_loss_in_training_is_the_data_loss_and_the_penalty():
    penalized, free = strong(), strong(alpha=0.0, beta=0.0)
    assert penalized.penalty == free.penalty == 0
    loss, data_loss = penalized.forward(XS, TS), free.forward(XS, TS)
    assert float(penalized.penalty) > 1e-3
    assert free.penalty == 0
    close(loss - penalized.penalty, data_loss)
    penalized.forward(XS, TS, train_flg=False)
    assert penalized.penalty == 0


@BOTH
def test_the_gradient_given_to_backward_scales_those_of_the_penalties_too(projection):
    model = strong(projection, alpha=20.0, beta=10.0)
    model.forward(XS, TS)
    model.backward()
    once = [grad.copy() for grad in model.grads]
    model.backward(2.5)
    for got, want in zip(model.grads, once, strict=True):
        close(got, 2.5 * want)


def test_an_update_reaches_the_whole_weight_under_the_mask():
    """With a learning rate of 1 each weight moves by exactly its gradient."""
    model, corpus = strong(), ids(generator(), V, N * T)
    before = [param.copy() for param in model.params]
    trainer = RnnlmTrainer(model, SGD(1.0), on_record=lambda record: None)
    trainer.fit(corpus, corpus, 1, N, T)
    for now, then, grad in zip(model.params, before, model.grads, strict=True):
        close(now, then - grad)
        assert grad.any()
    same(model.layers[-1].params[0], model.layers[0].params[0].T)


# ---- beside automatic differentiation ----


def loss_in_torch(torch, model, weights, xs, ts, alpha, beta):
    """The training loss from the paper's equations, with the masks that ``model`` has drawn."""

    def lstm(xs, Wx, Wh, b):
        h = c = torch.zeros(len(xs), len(Wh), dtype=torch.float64)
        hs = []
        for t in range(xs.shape[1]):
            f, g, i, o = (xs[:, t] @ Wx + h @ Wh + b).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hs.append(h)
        return torch.stack(hs, dim=1)

    dropouts = [layer for layer in model.layers if isinstance(layer, TimeDropout)]
    kept_parts = [torch.tensor(np.ascontiguousarray(layer.cache[0])) for layer in dropouts]
    scales = [layer.cache[1] for layer in dropouts]
    masks = iter(kept.double() * scale for kept, scale in zip(kept_parts, scales, strict=True))
    drops = [layer for layer in model.layers if isinstance(layer, TimeWeightDrop)]
    embed_W = weights["embedding.W"] * torch.tensor(model.layers[0].cache[1])[:, None]
    hs = embed_W[torch.tensor(xs)] * next(masks)
    for k, drop in enumerate(drops, start=1):
        if k > 1:
            hs = hs * next(masks)
        (kept,), scale, _ = drop.cache
        Wh = weights[f"lstm{k}.Wh"] * torch.tensor(kept * scale)
        hs = lstm(hs, weights[f"lstm{k}.Wx"], Wh, weights[f"lstm{k}.b"])
    dropped = hs * next(masks)
    penalty = alpha * dropped.pow(2).mean() + beta * (hs[:, 1:] - hs[:, :-1]).pow(2).mean()
    if "affine1.W" in weights:
        dropped = dropped @ weights["affine1.W"] + weights["affine1.b"]
    b = weights["affine2.b" if "affine1.W" in weights else "affine.b"]
    scores = dropped @ weights["embedding.W"].T + b
    data_loss = torch.nn.functional.cross_entropy(scores.reshape(-1, V), torch.tensor(ts).flatten())
    return data_loss + penalty


@BOTH
def test_loss_and_gradients_are_those_of_automatic_differentiation(projection):
    torch = pytest.importorskip("torch", reason="needs PyTorch; install 'time-layers[bench]'")
    model = strong(projection, alpha=2.0, beta=1.0)
    loss = model.forward(XS, TS)
    model.backward()
    weights = {
        name: torch.tensor(param, requires_grad=True)
        for name, param in model.named_params().items()
    }
    theirs = loss_in_torch(torch, model, weights, XS, TS, 2.0, 1.0)
    theirs.backward()
    close(loss, theirs.detach().numpy())
    for (name, weight), grad in zip(weights.items(), model.grads, strict=True):
        assert grad.any(), name
        close(grad, weight.grad.numpy())
