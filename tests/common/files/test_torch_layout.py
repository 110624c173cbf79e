"""Weights in PyTorch's layout: the same figures there and here, and back to the last bit."""

import numpy as np
import pytest

from common.files.torch_layout import from_torch, to_torch
from common.np import np as backend_np
from common.np import to_cpu
from common.time_layers import TimeAffine, TimeBiLSTM, TimeEmbedding, TimeGRU, TimeOutputWithLoss
from common.util import eval_perplexity_exact
from models import AwdRnnlm, BetterRnnlm, Rnnlm, SimpleRnnlm
from models.language_model import LanguageModel
from tests.builders import D, H, V, floats, generator, ids, same, snapshot

on_both = pytest.mark.usefixtures("backend")


class RnnlmWithGRU(Rnnlm):
    cell = TimeGRU


class BetterRnnlmWithGRU(BetterRnnlm):
    cell = TimeGRU


class FullGRU(LanguageModel):
    """One GRU whose candidate has a recurrent bias of its own, as PyTorch's has."""

    def __init__(self, V, D, H, rng):
        gru = TimeGRU(
            *(floats(rng, *s, dtype="float32") for s in ((D, 3 * H), (H, 3 * H), (4 * H,))),
            stateful=True,
        )
        output = TimeAffine(floats(rng, H, V, dtype="float32"), floats(rng, V, dtype="float32"))
        table = floats(rng, V, D, dtype="float32")
        self.compose([TimeEmbedding(table), gru, output], TimeOutputWithLoss(output))


MODELS = {
    "Rnnlm": lambda: Rnnlm(V, D, H, rng=1),
    "SimpleRnnlm": lambda: SimpleRnnlm(V, D, H, rng=1),
    "BetterRnnlm": lambda: BetterRnnlm(V, H, H, 0.5, rng=1),
    "RnnlmWithGRU": lambda: RnnlmWithGRU(V, D, H, rng=1),
    "BetterRnnlmWithGRU": lambda: BetterRnnlmWithGRU(V, H, H, 0.5, rng=1),
    "FullGRU": lambda: FullGRU(V, D, H, generator()),
    "AwdRnnlm": lambda: AwdRnnlm(V, H, H, 2, weight_drop=0.5, rng=1),
}
every_model = pytest.mark.parametrize("name", MODELS)


def filled(name, seed=3):
    """A model whose every weight, biases too, is a normal number."""
    model = MODELS[name]()
    rng = generator(seed)
    for param in model.params:
        param[...] = floats(rng, *param.shape, dtype="float32")
    return model


# ---- names, shapes, order ----


@on_both
@every_model
def test_there_and_back_changes_no_bit(name):
    model, other = filled(name), MODELS[name]()
    state = to_torch(model)
    other.fill_params(from_torch(other, state, "file"), "file")
    for got, want in zip(other.params, model.params, strict=True):
        same(got, want)


def test_the_gates_of_an_lstm_move_and_its_matrices_are_transposed():
    model = filled("Rnnlm")
    named, state = model.named_params(), to_torch(model)
    assert list(state) == [
        "encoder.weight",
        *["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"],
        *["decoder.weight", "decoder.bias"],
    ]
    f, g, i, o = (named["lstm.Wx"][:, k * H : (k + 1) * H] for k in range(4))
    same(state["rnn.weight_ih_l0"], np.concatenate([i, f, g, o], axis=1).T)
    f, g, i, o = (named["lstm.b"][k * H : (k + 1) * H] for k in range(4))
    same(state["rnn.bias_ih_l0"], np.concatenate([i, f, g, o]))
    assert not state["rnn.bias_hh_l0"].any()
    same(state["decoder.weight"], named["affine.W"].T)


def test_two_layers_are_numbered_and_a_tied_weight_stands_twice():
    model = filled("BetterRnnlm")
    state = to_torch(model)
    assert {"rnn.weight_ih_l0", "rnn.weight_ih_l1"} < set(state)
    same(state["decoder.weight"], state["encoder.weight"])
    assert not np.shares_memory(state["decoder.weight"], state["encoder.weight"])


def test_two_biases_are_added_up():
    model = MODELS["Rnnlm"]()
    state = to_torch(filled("Rnnlm"))
    state["rnn.bias_hh_l0"] = floats(generator(5), 4 * H, dtype="float32")
    i, f, g, o = np.split(state["rnn.bias_ih_l0"] + state["rnn.bias_hh_l0"], 4)
    same(from_torch(model, state, "file")["lstm.b"], np.concatenate([f, g, i, o]))


# ---- what is refused ----


def refused(model, state):
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"^some\.file") as error:
        from_torch(model, state, "some.file")
    for now, then in zip(model.params, before, strict=True):
        same(now, then)
    return str(error.value)


def test_one_error_lists_everything_that_does_not_fit():
    model = MODELS["Rnnlm"]()
    state = to_torch(model)
    del state["rnn.bias_hh_l0"]
    state["rnn.weight_ih_l1"] = np.zeros((4 * H, H), dtype="float32")
    state["decoder.weight"] = state["decoder.weight"].T
    state["decoder.bias"] = state["decoder.bias"].astype("float64")
    assert refused(model, state).splitlines() == [
        "some.file is not the state_dict of Rnnlm in PyTorch:",
        f"  decoder.bias: expected ({V},) float32, got ({V},) float64",
        f"  decoder.weight: expected ({V}, {H}) float32, got ({H}, {V}) float32",
        "  rnn.bias_hh_l0 is missing",
        "  rnn.weight_ih_l1 is not known",
    ]


def test_a_weight_that_is_not_tied_there_is_refused_and_one_of_two_may_be_left_out():
    model = filled("BetterRnnlm")
    for left_out in ("encoder.weight", "decoder.weight"):
        state = to_torch(model)
        del state[left_out]
        same(from_torch(model, state, "file")["embedding.W"], model.params[0])
    state = to_torch(model)
    state["decoder.weight"] = state["encoder.weight"].copy()
    state["decoder.weight"][2, 1] += 1
    assert "decoder.weight is not encoder.weight, to which BetterRnnlm" in refused(model, state)
    del state["encoder.weight"], state["decoder.weight"]
    assert "encoder.weight is missing" in refused(model, state)


def test_a_recurrent_bias_of_a_grus_candidate_needs_its_place():
    full = filled("FullGRU")
    state = to_torch(full)
    assert state["rnn.bias_hh_l0"][2 * H :].all() and not state["rnn.bias_hh_l0"][: 2 * H].any()
    message = refused(MODELS["RnnlmWithGRU"](), state)
    assert "rnn.bias_hh_l0: expected zeros for the candidate n" in message
    assert f"(3H,) = ({3 * H},)" in message


def test_models_that_pytorchs_layout_cannot_hold_are_refused():
    class Both(Rnnlm):
        def __init__(self):
            rng = generator()
            shapes = [(D, 4 * H), (H, 4 * H), (4 * H,)] * 2
            output = TimeAffine(floats(rng, 2 * H, V), floats(rng, V))
            both = TimeBiLSTM(*(floats(rng, *shape) for shape in shapes))
            self.compose([TimeEmbedding(floats(rng, V, D)), both, output], None)

    with pytest.raises(ValueError, match=r"^Both: expected an embedding, layers of one kind"):
        to_torch(Both())


# ---- beside PyTorch itself ----


def in_torch(torch, model):
    """The module that the layout describes, without weights of ours."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            cells = [l for l in model.layers if l.state_names]
            width, vocabulary = len(cells[0].params[0]), model.layers[-1].params[0].shape[1]
            hidden, gates = cells[0].params[1].shape
            kind = {1: torch.nn.RNN, 3: torch.nn.GRU, 4: torch.nn.LSTM}[gates // hidden]
            self.encoder = torch.nn.Embedding(vocabulary, width)
            self.rnn = kind(width, hidden, num_layers=len(cells), batch_first=True)
            self.decoder = torch.nn.Linear(hidden, vocabulary)

        def forward(self, xs):
            return self.decoder(self.rnn(self.encoder(xs))[0])

    return Module()


def perplexity_in_torch(torch, module, corpus, first_id):
    """One stream from a zero state, every target once, the sum in float64."""
    xs = torch.tensor(np.concatenate([[first_id], corpus[:-1]]))[None]
    with torch.no_grad():
        log_p = torch.log_softmax(module(xs)[0].double(), dim=1)
    return float(torch.exp(-log_p[torch.arange(len(corpus)), torch.tensor(corpus)].mean()))


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch", reason="needs PyTorch; install 'time-layers[bench]'")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return torch


@every_model
def test_pytorch_reads_the_file_and_has_the_same_perplexity(name, torch, tmp_path):
    from safetensors.torch import load_file

    from common.files.tensors import write_tensors

    model, corpus = filled(name), ids(generator(1), V, 200)
    path = tmp_path / "file.safetensors"
    write_tensors(path, to_torch(model), {"layout": "PyTorch"})
    module = in_torch(torch, model)
    module.load_state_dict(load_file(path))
    ours = eval_perplexity_exact(model, corpus, 2)
    assert perplexity_in_torch(torch, module, corpus, 2) == pytest.approx(ours, rel=1e-4)
    assert not 0.9 < ours / V < 1.1


@pytest.mark.parametrize("name", ["Rnnlm", "SimpleRnnlm", "BetterRnnlm", "FullGRU"])
def test_a_state_dict_that_pytorch_made_has_the_same_perplexity_here(name, torch, tmp_path):
    from safetensors.torch import save_file, save_model

    from common.files.tensors import read_tensors

    model, corpus = MODELS[name](), ids(generator(1), V, 200)
    module = in_torch(torch, model)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)  # both biases, too
    path = tmp_path / "file.safetensors"
    if name == "BetterRnnlm":
        module.decoder.weight = module.encoder.weight
        save_model(module, str(path))  # which leaves one of the two out
    else:
        save_file(module.state_dict(), path)
    state, about = read_tensors(path)
    assert about == {}
    model.fill_params(from_torch(model, state, path), path)
    ours = eval_perplexity_exact(model, corpus, 2)
    assert perplexity_in_torch(torch, module, corpus, 2) == pytest.approx(ours, rel=1e-4)
    assert not 0.9 < ours / V < 1.1


@on_both
def test_the_tensors_are_on_the_device_of_the_model():
    model = filled("Rnnlm")
    for tensor in to_torch(model).values():
        assert isinstance(tensor, backend_np.ndarray)
        assert to_cpu(tensor).flags.c_contiguous
