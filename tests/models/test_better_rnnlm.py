"""Two LSTM layers, dropout between all layers, one weight for input and output."""

import numpy as np
import pytest

from common.optimizer import SGD
from common.time_layers import TimeAffine, TimeDropout, TimeEmbedding, TimeLSTM
from common.trainer import RnnlmTrainer
from models import BetterRnnlm
from tests.builders import D, H, N, T, V, close, generator, ids, same, tiny_model


def test_the_layers_their_shapes_and_their_number_of_weights():
    model = tiny_model("BetterRnnlm", dropout_ratio=0.3)
    assert [type(layer) for layer in model.layers] == [
        TimeEmbedding,
        TimeDropout,
        TimeLSTM,
        TimeDropout,
        TimeLSTM,
        TimeDropout,
        TimeAffine,
    ]
    assert {name: param.shape for name, param in model.named_params().items()} == {
        "embedding.W": (V, H),
        **{
            f"lstm{k}.{name}": shape
            for k in (1, 2)
            for name, shape in [("Wx", (H, 4 * H)), ("Wh", (H, 4 * H)), ("b", (4 * H,))]
        },
        "affine.b": (V,),
    }
    assert [layer.dropout_ratio for layer in model.layers[1::2]] == [0.3] * 3


def test_the_tied_weight_is_one_array_with_one_gradient():
    model = tiny_model("BetterRnnlm")
    embedding, output = model.layers[0], model.layers[-1]
    assert np.shares_memory(embedding.params[0], output.params[0])
    assert np.shares_memory(embedding.grads[0], output.grads[0])
    same(output.params[0], embedding.params[0].T)
    assert len(model.params) == len(model.grads) == 8
    assert sum(param is embedding.params[0] for param in model.params) == 1
    assert not any(param is output.params[0] for param in model.params)
    assert model.grads[0] is embedding.grads[0]


def test_the_gradient_of_the_tied_weight_is_the_sum_of_both_shares():
    """The shares, from a twin whose two layers have a gradient each."""
    model, twin = (tiny_model("BetterRnnlm", "float64", scale=1.5) for _ in range(2))
    embedding, output = twin.layers[0], twin.layers[-1]
    embedding.accumulate = False
    embedding.grads[0], output.grads[0] = np.zeros((V, H)), np.zeros((H, V))
    rng = generator()
    for _ in range(2):
        xs, ts = ids(rng, V, N, T), ids(rng, V, N, T)
        for net in (model, twin):
            net.forward(xs, ts)
            net.backward()
        assert abs(embedding.grads[0]).max() > 1e-3 < abs(output.grads[0]).max()
        close(model.grads[0], embedding.grads[0] + output.grads[0].T)


def test_the_tied_weight_is_updated_once_in_training():
    """With a learning rate of 1 each weight moves by exactly its gradient."""
    model = tiny_model("BetterRnnlm", "float64", scale=1.5)
    before = [param.copy() for param in model.params]
    corpus = ids(generator(), V, N * T)
    trainer = RnnlmTrainer(model, SGD(1.0), on_record=lambda record: None)
    trainer.fit(corpus, corpus, 1, N, T)
    assert trainer.iteration == 1
    for now, then, grad in zip(model.params, before, model.grads, strict=True):
        close(now, then - grad)
    same(model.layers[-1].params[0], model.layers[0].params[0].T)


def test_an_embedding_of_another_width_than_the_hidden_state_is_refused():
    with pytest.raises(ValueError, match=rf"^BetterRnnlm: .*wordvec_size.*{D} and {H}"):
        BetterRnnlm(V, D, H)


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_dropout_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"dropout ratio in \[0, 1\)"):
        BetterRnnlm(V, H, H, dropout_ratio=ratio)


def test_one_seed_decides_the_masks_too():
    xs, ts = ids(generator(), V, N, T), ids(generator(1), V, N, T)
    first, second = (tiny_model("BetterRnnlm", seed=3, dropout_ratio=0.5) for _ in range(2))
    for _ in range(2):
        assert float(first.forward(xs, ts)) == float(second.forward(xs, ts))
    first.reset_state(), second.reset_state()
    assert float(first.forward(xs, ts)) != float(second.forward(xs, ts, train_flg=False))


def test_the_default_sizes_are_those_of_the_book():
    assert sum(param.size for param in BetterRnnlm().params) == 13_275_200  # V=10000, D=H=650
