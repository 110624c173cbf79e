"""A model as a stack of layers, and its weights in a file."""

import copy
import errno
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.base_model import BaseModel
from common.layers import Affine, Sigmoid, SoftmaxWithLoss
from common.time_layers import (
    TimeAffine,
    TimeEmbedding,
    TimeGRU,
    TimeLSTM,
    TimeSoftmaxWithLoss,
)
from models import BetterRnnlm, Rnnlm
from tests.builders import (
    MODELS,
    D,
    H,
    N,
    T,
    V,
    cell_weights,
    close,
    floats,
    generator,
    ids,
    same,
    snapshot,
    tiny_model,
)

every_model = pytest.mark.parametrize("name", MODELS)

NAMES = {
    "SimpleRnnlm": ["embedding.W", "rnn.Wx", "rnn.Wh", "rnn.b", "affine.W", "affine.b"],
    "Rnnlm": ["embedding.W", "lstm.Wx", "lstm.Wh", "lstm.b", "affine.W", "affine.b"],
    "BetterRnnlm": [
        "embedding.W",
        *["lstm1.Wx", "lstm1.Wh", "lstm1.b", "lstm2.Wx", "lstm2.Wh", "lstm2.b"],
        "affine.b",
    ],
}
NAMES["AwdRnnlm"] = NAMES["BetterRnnlm"]


def window(seed=0):
    return ids(generator(seed), V, N, T)


# ---- layers in a row ----


class TwoLayers(BaseModel):
    def __init__(self):
        rng = generator()
        self.first, self.second = Affine(floats(rng, D, H), floats(rng, H)), Sigmoid()
        self.third = Affine(floats(rng, H, V), floats(rng, V))
        self.compose([self.first, self.second, self.third], SoftmaxWithLoss())


def test_a_model_runs_its_layers_in_order_and_back():
    model, x, t = TwoLayers(), floats(generator(1), N, D), ids(generator(2), V, N)
    loss, dx = model.forward(x, t), model.backward()
    other = TwoLayers()
    scores = other.third.forward(other.second.forward(other.first.forward(x)))
    same(model.predict(x), scores)
    loss_layer = SoftmaxWithLoss()
    same(loss, loss_layer.forward(scores, t))
    dy = other.third.backward(loss_layer.backward())
    same(dx, other.first.backward(other.second.backward(dy)))
    gradients = [*other.first.grads, *other.third.grads]
    for got, want in zip(model.grads, gradients, strict=True):
        same(got, want)


def test_the_gradient_given_to_backward_scales_all_others():
    model, x, t = TwoLayers(), floats(generator(1), N, D), ids(generator(2), V, N)
    model.forward(x, t)
    model.backward()
    once = [g.copy() for g in model.grads]
    model.backward(2.0)
    for got, want in zip(model.grads, once, strict=True):
        close(got, 2 * want)


@every_model
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [None, 100.0])  # scores of the large one need a shift
def test_backward_twice_in_a_row_gives_the_same_gradients_a_tied_one_too(name, dtype, scale):
    model = tiny_model(name, dtype, dropout_ratio=0.3, scale=scale)
    model.forward(window(), window(1))
    model.backward()
    once = [g.copy() for g in model.grads]
    model.backward()
    for got, want in zip(model.grads, once, strict=True):
        same(got, want)


@every_model
def test_backward_before_forward_is_an_error(name):
    with pytest.raises(RuntimeError, match=r"^Time\w+\.backward.*call forward first"):
        tiny_model(name).backward()


@every_model
def test_backward_after_an_evaluation_is_an_error(name):
    model = tiny_model(name, dropout_ratio=0.3)
    model.forward(window(), window(1))
    model.forward(window(), window(1), train_flg=False)
    with pytest.raises(RuntimeError, match=rf"^{name}\.backward: predict or an evaluation has run"):
        model.backward()


def test_dropout_is_on_in_training_and_off_in_prediction():
    model = tiny_model("BetterRnnlm", dropout_ratio=0.5, scale=1.5)

    def scores(train_flg):
        model.reset_state()
        return model.predict(window(), train_flg)

    same(scores(False), scores(False))
    assert not np.array_equal(scores(True), scores(True))


def test_a_tie_that_only_one_gradient_knows_of_is_refused():
    """compose() keeps the first gradient of a tied weight; the other must be the same memory."""

    class HalfTied(BaseModel):
        def __init__(self):
            table = floats(generator(), V, H)
            output = TimeAffine(table.T, np.zeros(V))
            self.compose([TimeEmbedding(table), output], TimeSoftmaxWithLoss())

    with pytest.raises(ValueError, match="grad"):
        HalfTied()


# ---- state ----


@every_model
def test_the_state_of_a_model_can_be_taken_out_and_put_back(name):
    model = tiny_model(name, scale=1.5)
    assert set(model.get_state()) == {None}
    model.forward(window(), window(1))
    state = model.get_state()
    expected = float(model.forward(window(2), window(3)))
    assert float(model.forward(window(2), window(3))) != expected
    model.set_state(state)
    assert float(model.forward(window(2), window(3))) == expected
    model.set_state([None] * len(state))
    assert set(model.get_state()) == {None}
    model.set_state(state)
    model.reset_state()
    assert set(model.get_state()) == {None}


def test_a_state_for_another_number_of_layers_is_refused():
    with pytest.raises(ValueError):
        tiny_model("BetterRnnlm").set_state([None])


class WithoutState(BaseModel):
    def __init__(self):
        rng = generator()
        self.compose(
            [
                TimeEmbedding(floats(rng, V, D)),
                TimeLSTM(*cell_weights("TimeLSTM"), stateful=False),
                TimeAffine(floats(rng, H, V), np.zeros(V)),
            ],
            TimeSoftmaxWithLoss(),
        )


def test_get_state_and_set_state_are_a_pair_for_layers_that_keep_none():
    model = WithoutState()
    loss = float(model.forward(window(), window(1)))
    model.set_state(model.get_state())
    assert float(model.forward(window(), window(1))) == loss


# ---- names and files ----


@every_model
def test_the_names_of_the_weights_never_change(name):
    model = tiny_model(name)
    assert list(model.named_params()) == NAMES[name]
    for param, named in zip(model.params, model.named_params().values(), strict=True):
        assert param is named


@every_model
def test_saved_weights_predict_the_same_to_the_last_bit_in_another_model(name, tmp_path):
    model, other = tiny_model(name, seed=1, scale=1.5), tiny_model(name, seed=2)
    model.save_params(tmp_path / "weights.safetensors")
    assert not np.array_equal(other.predict(window()), model.predict(window()))
    other.load_params(tmp_path / "weights.safetensors")
    for net in (model, other):
        net.reset_state()
    for k in range(2):
        same(other.predict(window(k)), model.predict(window(k)))


@every_model
def test_loading_fills_the_layers_own_arrays(name, tmp_path):
    model, other = tiny_model(name, seed=1), tiny_model(name, seed=2)
    model.save_params(tmp_path / "weights")
    held = [param for layer in other.layers for param in layer.params]
    in_model = list(other.params)
    other.load_params(tmp_path / "weights")
    for now, then in zip([p for layer in other.layers for p in layer.params], held, strict=True):
        assert now is then
    for now, then, want in zip(other.params, in_model, model.params, strict=True):
        assert now is then
        same(now, want)


@every_model
def test_the_file_holds_named_float32_tensors_and_a_tied_one_once(name, tmp_path):
    model = tiny_model(name, dtype="float64")
    model.save_params(tmp_path / "weights")
    tensors = load_file(tmp_path / "weights")
    assert sorted(tensors) == sorted(NAMES[name])
    for key, param in model.named_params().items():
        same(tensors[key], param.astype("float32"))


def test_a_tied_weight_stays_tied_after_loading_and_through_the_next_update(tmp_path):
    model, other = tiny_model("BetterRnnlm", seed=1), tiny_model("BetterRnnlm", seed=2)
    model.save_params(tmp_path / "weights")
    other.load_params(tmp_path / "weights")
    table = other.layers[0].params[0]
    same(table, model.layers[0].params[0])
    other.forward(window(), window(1))
    other.backward()
    for param, grad in zip(other.params, other.grads, strict=True):
        param -= grad
    output = other.layers[-1].params[0]
    assert np.shares_memory(table, output)
    same(output, table.T)


def test_without_a_name_the_file_is_named_after_the_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, other = tiny_model("Rnnlm", seed=1), tiny_model("Rnnlm", seed=2)
    model.save_params()
    assert os.listdir(tmp_path) == ["Rnnlm.safetensors"]
    other.load_params()
    same(other.params[0], model.params[0])


def test_weights_of_float64_come_back_rounded_to_float32_in_a_float64_model(tmp_path):
    model = tiny_model("Rnnlm", dtype="float64")
    model.save_params(tmp_path / "weights")
    expected = [p.astype("float32").astype("float64") for p in model.params]
    model.load_params(tmp_path / "weights")
    for got, want in zip(model.params, expected, strict=True):
        same(got, want)


def test_the_weights_of_a_layer_without_names_are_numbered():
    class Bare:
        def __init__(self):
            self.params, self.grads = [np.ones((2, 2)), np.ones(2)], [np.zeros((2, 2)), np.zeros(2)]

    model = BaseModel()
    model.layers = [Bare()]
    assert list(model.named_params()) == ["bare.0", "bare.1"]


class Half:
    """Two layers that belong together, which is no layer itself."""

    def __init__(self, *layers):
        self.layers = layers
        self.params = [param for layer in layers for param in layer.params]
        self.grads = [grad for layer in layers for grad in layer.grads]


class InHalves(BaseModel):
    """In the book's way of an encoder and a decoder: parameters, but no list of layers."""

    def __init__(self, seed, cell=TimeLSTM):
        rng, k = generator(seed), cell.num_gates
        recurrent = [floats(rng, *s, dtype="float32") for s in ((D, k * H), (H, k * H), (k * H,))]
        output = [floats(rng, *s, dtype="float32") for s in ((H, V), (V,))]
        self.encoder = Half(TimeEmbedding(floats(rng, V, D, dtype="float32")), cell(*recurrent))
        self.decoder = Half(TimeAffine(*output))
        self.params = self.encoder.params + self.decoder.params
        self.grads = self.encoder.grads + self.decoder.grads


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pkl"])
def test_a_model_without_a_list_of_layers_saves_and_loads_its_parameters(file, tmp_path):
    model, other = InHalves(1), InHalves(2)
    held = other.encoder.params[0]
    model.save_params(tmp_path / file)
    other.load_params(tmp_path / file)
    assert len(other.params) == 6
    for got, want in zip(other.params, model.params, strict=True):
        same(got, want)
    assert other.params[0] is held
    assert "parameter 6" in repr(other) and f"{sum(p.size for p in other.params):,}" in repr(other)


class Bare:
    """Parameters in an object that takes no further attributes."""

    __slots__ = ("grads", "params")

    def __init__(self, params, grads):
        self.params, self.grads = params, grads


def test_what_holds_parameters_may_have_slots(tmp_path):
    model, other = InHalves(1), InHalves(2)
    other.encoder = Bare(other.encoder.params, other.encoder.grads)
    as_the_book_saves(model, tmp_path / "InHalves.pkl")
    other.load_params(tmp_path / "InHalves.pkl")
    for got, want in zip(other.params, model.params, strict=True):
        same(got, want.astype("float16").astype("float32"))


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pkl"])
def test_a_parameter_that_no_listed_layer_holds_is_saved_too(file, tmp_path):
    models = [InHalves(seed) for seed in (1, 2)]
    for model in models:
        model.layers = list(model.encoder.layers)
    models[0].save_params(tmp_path / file)
    models[1].load_params(tmp_path / file)
    assert list(models[1].named_params())[-2:] == ["parameter 5", "parameter 6"]
    for got, want in zip(models[1].params, models[0].params, strict=True):
        same(got, want)


# ---- pickled lists, as the book writes them ----


def as_the_book_saves(model, path, dtype="float16"):
    """``pickle.dump`` of what the book's ``params`` holds: a tied weight once more at its place."""
    layers = getattr(model, "layers", [])
    params = [param for layer in layers for param in layer.params] or model.params
    path.write_bytes(pickle.dumps([param.astype(dtype) for param in params]))


@pytest.mark.parametrize("name", ["Rnnlm", "BetterRnnlm"])
def test_weights_that_the_book_saved_are_loaded(name, tmp_path):
    model, other = tiny_model(name, seed=1), tiny_model(name, seed=2)
    as_the_book_saves(model, tmp_path / "weights.pkl")
    other.load_params(tmp_path / "weights.pkl")
    for got, want in zip(other.params, model.params, strict=True):
        same(got, want.astype("float16").astype("float32"))


@every_model
def test_a_file_called_pkl_is_the_list_that_the_book_loads_and_loses_nothing(name, tmp_path):
    model, other = tiny_model(name, seed=1), tiny_model(name, seed=2)
    model.save_params(tmp_path / "weights.pkl")
    with open(tmp_path / "weights.pkl", "rb") as file:
        arrays = pickle.load(file)
    params = [param for layer in model.layers for param in layer.params]
    for got, want in zip(arrays, params, strict=True):
        same(got, want)
    other.load_params(tmp_path / "weights.pkl")
    for got, want in zip(other.params, model.params, strict=True):
        same(got, want)


def test_a_pickle_that_would_run_something_is_not_run(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"cos\nsystem\n(Vtouch " + str(tmp_path / "made").encode() + b"\ntR.")
    with pytest.raises(ValueError, match="it names 'os system'"):
        tiny_model("Rnnlm").load_params(path)
    assert not (tmp_path / "made").exists()


def test_a_list_of_another_model_changes_no_weight(tmp_path):
    path, model = tmp_path / "weights.pkl", tiny_model("Rnnlm", seed=2)
    as_the_book_saves(tiny_model("BetterRnnlm"), path)
    assert "expected 6 arrays for Rnnlm (embedding.W, " in refused(model, path)


def test_weights_under_a_name_of_the_book_that_are_no_pickle_are_loaded(tmp_path):
    model, other = tiny_model("Rnnlm", seed=1), tiny_model("Rnnlm", seed=2)
    model.save_params(tmp_path / "weights.safetensors")
    os.rename(tmp_path / "weights.safetensors", tmp_path / "weights.pkl")
    other.load_params(tmp_path / "weights.pkl")
    same(other.params[0], model.params[0])


def test_without_a_name_and_without_a_file_of_ours_the_book_s_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    book, ours, other = (tiny_model("Rnnlm", seed=seed) for seed in (1, 2, 3))
    as_the_book_saves(book, tmp_path / "Rnnlm.pkl", "float32")
    other.load_params()
    same(other.params[0], book.params[0])
    ours.save_params()
    other.load_params()
    same(other.params[0], ours.params[0])


def test_in_place_of_a_pickle_that_is_missing_the_file_beside_it_is_loaded_and_said(tmp_path):
    model, other = tiny_model("Rnnlm", seed=1), tiny_model("Rnnlm", seed=2)
    model.save_params(tmp_path / "Rnnlm.safetensors")
    with pytest.warns(UserWarning, match=r"Rnnlm\.pkl is not there, .*Rnnlm\.safetensors is read"):
        other.load_params(tmp_path / "Rnnlm.pkl")
    same(other.params[0], model.params[0])
    with pytest.raises(FileNotFoundError, match=r"other\.pkl"):
        other.load_params(tmp_path / "other.pkl")


def test_a_pickle_is_loaded_with_a_word_about_the_newer_file_beside_it(tmp_path):
    """A script saves under the name of the class; another names the book's file to load."""
    book, ours, other = (tiny_model("Rnnlm", seed=seed) for seed in (1, 2, 3))
    as_the_book_saves(book, tmp_path / "Rnnlm.pkl", "float32")
    ours.save_params(tmp_path / "Rnnlm.safetensors")
    os.utime(tmp_path / "Rnnlm.pkl", (1, 1))
    with pytest.warns(UserWarning, match=r"Rnnlm\.pkl is read, .*Rnnlm\.safetensors is newer"):
        other.load_params(tmp_path / "Rnnlm.pkl")
    same(other.params[0], book.params[0])


def test_weights_of_the_book_s_gru_are_loaded_with_a_warning(tmp_path):
    path = tmp_path / "weights.pkl"
    for model in (tiny_model("Rnnlm"), InHalves(1)):
        as_the_book_saves(model, path)
        model.load_params(path)  # an LSTM is the book's
    for model in (Rnnlm(V, D, H, rng=1, cell="gru"), InHalves(1, TimeGRU)):
        as_the_book_saves(model, path)
        with pytest.warns(UserWarning, match="GRU of the book has another formula, and its gates"):
            model.load_params(path)
        model.save_params(path)
        model.load_params(path)  # what this project wrote is in its own order


# ---- files that are not what they should be ----


@pytest.fixture
def saved(tmp_path):
    """A path with the weights of a small Rnnlm, and another Rnnlm to load them into."""
    path = tmp_path / "weights.safetensors"
    tiny_model("Rnnlm", seed=1).save_params(path)
    return path, tiny_model("Rnnlm", seed=2)


def refused(model, path):
    """The message of the ValueError of loading ``path``, which must change no weight."""
    before = snapshot(model)
    with pytest.raises(ValueError) as error:
        model.load_params(path)
    for now, then in zip(model.params, before, strict=True):
        same(now, then)
    assert str(path) in str(error.value)
    return str(error.value)


def test_one_error_lists_everything_that_does_not_fit(saved):
    path, model = saved
    tensors = load_file(path)
    del tensors["lstm.Wx"]
    tensors["lstm3.Wx"] = np.zeros(3, dtype="float32")
    tensors["affine.W"] = np.ascontiguousarray(tensors["affine.W"].T)
    tensors["lstm.b"][3] = np.nan
    tensors["affine.b"][0] = np.inf
    tensors["embedding.W"] = tensors["embedding.W"].astype("float16")
    save_file(tensors, path)
    assert refused(model, path).splitlines() == [
        f"{path} does not fit Rnnlm:",
        f"  affine.W: expected ({H}, {V}) float32, got ({V}, {H}) float32",
        "  affine.b holds values that are not finite",
        f"  embedding.W: expected ({V}, {D}) float32, got ({V}, {D}) float16",
        "  lstm.Wx is missing",
        "  lstm.b holds values that are not finite",
        "  lstm3.Wx is not known",
    ]


@pytest.mark.parametrize("value", [np.nan, 1e39])  # the second is finite in float64 only
def test_weights_that_could_not_be_loaded_are_not_saved(saved, value):
    path, _ = saved
    before, spoilt = path.read_bytes(), Rnnlm(V, D, H, rng=0, dtype="float64")
    spoilt.params[0][0, 0] = value
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=r"embedding\.W is not finite"):
        spoilt.save_params(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "uint8"])
def test_a_tensor_of_another_type_is_refused(saved, dtype):
    path, model = saved
    tensors = load_file(path)
    tensors["lstm.b"] = tensors["lstm.b"].astype(dtype)
    save_file(tensors, path)
    assert f"lstm.b: expected ({4 * H},) float32, got ({4 * H},) {dtype}" in refused(model, path)


def test_the_weights_of_another_model_are_refused(saved):
    path, _ = saved
    message = refused(tiny_model("BetterRnnlm"), path)
    assert "lstm1.Wx is missing" in message
    assert "lstm.Wx is not known" in message


def test_a_file_cut_off_at_any_length_is_refused(tmp_path):
    path, model = tmp_path / "weights", Rnnlm(2, 1, 1)
    model.save_params(path)
    data = path.read_bytes()
    model.load_params(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            model.load_params(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 100,
        b"the quick brown fox jumps over the lazy dog",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        pickle.dumps([np.zeros((2, 3), dtype=np.float16)]),
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": 1} ',
    ],
    ids=["empty", "zeros", "ones", "text", "png", "pickle", "no object", "no tensor"],
)
def test_a_file_of_another_kind_is_refused(saved, data):
    path, model = saved
    path.write_bytes(data)
    assert "not a whole safetensors file" in refused(model, path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        tiny_model("Rnnlm").load_params(tmp_path / "missing")


def test_an_unwritable_place_is_an_os_error_and_nothing_is_left_there(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing" / "weights", tmp_path / "file" / "weights"):
        with pytest.raises(OSError):
            tiny_model("Rnnlm").save_params(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_save_that_fails_half_way_keeps_the_older_file(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        model.save_params(path)
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.gpu
def test_weights_go_from_the_gpu_to_the_cpu_and_back(tmp_path, monkeypatch):
    from common import config

    monkeypatch.setattr(config, "GPU", True)
    there = tiny_model("BetterRnnlm", seed=1)
    there.save_params(tmp_path / "weights")
    monkeypatch.setattr(config, "GPU", False)
    here = tiny_model("BetterRnnlm", seed=2)
    here.load_params(tmp_path / "weights")
    for a, b in zip(here.params, there.params, strict=True):
        same(a, b)
    here.save_params(tmp_path / "again")
    monkeypatch.setattr(config, "GPU", True)
    there.load_params(tmp_path / "again")
    for a, b in zip(here.params, there.params, strict=True):
        same(a, b)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@every_model
def test_a_model_in_training_can_be_copied_and_the_copy_trains_alike(name, copied):
    model = tiny_model(name, dropout_ratio=0.4)
    xs, ts = ids(generator(1), V, N, T), ids(generator(2), V, N, T)
    model.forward(xs, ts)
    model.backward()
    twin = copied(model)
    with pytest.raises(RuntimeError, match="forward pass"):
        twin.backward()
    for _ in range(2):
        same(np.asarray(twin.forward(xs, ts)), np.asarray(model.forward(xs, ts)))
        for each in (model, twin):
            each.backward()
        for own, other in zip(twin.grads, model.grads, strict=True):
            same(own, other)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


class Tied(BaseModel):
    """In the book's way: no list of layers, a tie by a transposed view, a gradient for each."""

    def __init__(self, size):
        W = floats(generator(), size, H, dtype="float32")
        self.embedding, self.output = TimeEmbedding(W), TimeAffine(W.T, np.zeros(size, "float32"))
        self.loss = TimeSoftmaxWithLoss()
        self.params = self.embedding.params + self.output.params
        self.grads = self.embedding.grads + self.output.grads

    def forward(self, xs, ts):
        return self.loss.forward(self.output.forward(self.embedding.forward(xs)), ts)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
@pytest.mark.parametrize("size", [V, H], ids=["wide", "square"])
@pytest.mark.parametrize("kind", [Tied, lambda size: BetterRnnlm(size, H, H, 0.0, rng=1)])
def test_a_tied_weight_stays_tied_and_transposed_in_a_copy(kind, size, copied):
    model = kind(size)
    twin = copied(model)
    xs, ts = (ids(generator(seed), size, N, T) for seed in (1, 2))
    expected = model.forward(xs, ts)
    if isinstance(model, BetterRnnlm):
        twin.reset_state()  # a shallow copy has the same layers
        (embedding,), (output, _) = twin.layers[0].params, twin.layers[-1].params
    else:
        (embedding,), (output, _) = twin.embedding.params, twin.output.params
    same(np.asarray(twin.forward(xs, ts)), np.asarray(expected))
    embedding[...] = np.arange(size * H).reshape(size, H)
    same(output, embedding.T)
    assert np.shares_memory(embedding, model.params[0]) == (copied is copy.copy)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_parameter_at_the_beginning_of_another_is_no_tie(copied):
    model = TwoLayers()
    block = floats(generator(), 2 * D, H)
    model.first.params[0] = model.params[0] = block[:D]
    model.params.append(block)
    model.grads.append(np.zeros_like(block))
    twin = copied(model)
    same(twin.params[0], block[:D])
    same(twin.params[-1], block)
    x, ts = floats(generator(1), N, D), ids(generator(1), V, N)
    same(np.asarray(twin.forward(x, ts)), np.asarray(model.forward(x, ts)))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_model_that_is_copied_between_forward_and_backward_still_goes_back(copied):
    model = tiny_model("BetterRnnlm", dropout_ratio=0.4)
    xs, ts = ids(generator(1), V, N, T), ids(generator(2), V, N, T)
    for _ in range(2):
        model.forward(xs, ts)
        model.backward()
        expected = [grad.copy() for grad in model.grads]
        copied(model)
        model.backward()
        for grad, before in zip(model.grads, expected, strict=True):
            same(grad, before)
