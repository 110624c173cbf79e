"""Embedding, one LSTM, output layer."""

import pytest

from common.time_layers import TimeAffine, TimeEmbedding, TimeLSTM
from models import Rnnlm
from tests.builders import D, H, N, T, V, close, generator, ids, tiny_model


def test_the_layers_their_shapes_and_their_number_of_weights():
    model = tiny_model("Rnnlm")
    assert [type(layer) for layer in model.layers] == [TimeEmbedding, TimeLSTM, TimeAffine]
    assert {name: param.shape for name, param in model.named_params().items()} == {
        "embedding.W": (V, D),
        "lstm.Wx": (D, 4 * H),
        "lstm.Wh": (H, 4 * H),
        "lstm.b": (4 * H,),
        "affine.W": (H, V),
        "affine.b": (V,),
    }
    assert [g.shape for g in model.grads] == [p.shape for p in model.params]
    assert model.layers[1].stateful


def test_the_default_sizes_are_those_of_the_book():
    assert sum(param.size for param in Rnnlm().params) == 2_090_400  # V=10000, D=H=100


def test_weights_begin_scaled_by_their_inputs_and_biases_at_zero():
    named = Rnnlm(1000, 100, 400, rng=1).named_params()
    scales = {"embedding.W": 0.01, "lstm.Wx": 0.1, "lstm.Wh": 0.05, "affine.W": 0.05}
    for name, scale in scales.items():
        assert float(named[name].std()) == pytest.approx(scale, rel=0.03)
        assert abs(float(named[name].mean())) < 0.03 * scale
    assert not named["lstm.b"].any()
    assert not named["affine.b"].any()


def test_the_scores_are_those_of_its_layers_run_by_hand_over_two_windows():
    model, twin = (tiny_model("Rnnlm", "float64", scale=1.5) for _ in range(2))
    embedding, lstm, affine = twin.layers
    rng = generator()
    for _ in range(2):
        xs = ids(rng, V, N, T)
        close(model.predict(xs), affine.forward(lstm.forward(embedding.forward(xs))))
