"""The language model before gates."""

from common.time_layers import TimeAffine, TimeEmbedding, TimeRNN
from models import SimpleRnnlm
from tests.builders import D, H, V, tiny_model


def test_the_layers_their_shapes_and_their_number_of_weights():
    model = tiny_model("SimpleRnnlm")
    assert [type(layer) for layer in model.layers] == [TimeEmbedding, TimeRNN, TimeAffine]
    assert {name: param.shape for name, param in model.named_params().items()} == {
        "embedding.W": (V, D),
        "rnn.Wx": (D, H),
        "rnn.Wh": (H, H),
        "rnn.b": (H,),
        "affine.W": (H, V),
        "affine.b": (V,),
    }
    assert model.layers[1].stateful


def test_the_default_sizes_are_those_of_rnnlm_with_a_quarter_of_its_recurrent_weights():
    assert sum(param.size for param in SimpleRnnlm().params) == 2_030_100  # V=10000, D=H=100
