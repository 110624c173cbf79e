"""Any cell of one step, from this package or from outside, is a time layer like the others."""

import copy
import pickle
import sys

import pytest

from common import cells
from common.base_layer import Layer, normal, zeros
from common.files.tensors import read_checkpoint, write_checkpoint
from common.functions import sigmoid
from common.gradient_check import check_layer
from common.layers import GRU, LSTM, RNN, Affine
from common.np import np
from common.optimizer import Momentum
from common.time_layers import (
    TimeBidirectional,
    TimeBiLSTM,
    TimeCell,
    TimeGRU,
    TimeLSTM,
    TimeRNN,
    TimeStack,
    TimeWeightDrop,
    cell_named,
    cells_by_name,
)
from common.trainer import RnnlmTrainer
from models import AwdRnnlm, BetterRnnlm, Rnnlm
from tests.builders import D, H, N, T, V, close, floats, generator, ids, same

PAIRS = {"RNN": (RNN, TimeRNN), "LSTM": (LSTM, TimeLSTM), "GRU": (GRU, TimeGRU)}


class TwoTrack(Layer):
    """A cell as somebody outside may write it: no Wh, two states of unlike widths, a layer inside.

    m = sigmoid(p) * m_prev + x U;  h = affine([m, h_prev])
    """

    param_names = ("U", "p", "W", "b")

    def __init__(self, U, p, W, b):
        super().__init__(U, p)
        self.affine = Affine(W, b)
        self.params += self.affine.params
        self.grads += self.affine.grads
        self.state_sizes = (len(b), len(p))

    @classmethod
    def build(cls, D, H, rng, dtype):
        M = H + 2
        U, W = normal(rng, (D, M), D**-0.5, dtype), normal(rng, (M + H, H), H**-0.5, dtype)
        return cls(U, zeros(M, dtype), W, zeros(H, dtype))

    def forward(self, x, h_prev, m_prev):
        U, p, _, _ = self.params
        self.x, self.m_prev, self.gate = x, m_prev, sigmoid(p)  # kept beside the cache
        m = self.gate * m_prev + x @ U
        return self.affine.forward(np.concatenate([m, h_prev], axis=1)), m

    def backward(self, dh, dm):
        U, p, _, _ = self.params
        dmh = self.affine.backward(dh)
        dm = dm + dmh[:, : len(p)]
        self.grads[0][...] = self.x.T @ dm
        self.grads[1][...] = (dm * self.m_prev).sum(axis=0) * self.gate * (1 - self.gate)
        return dm @ U.T, dmh[:, len(p) :], dm * self.gate


EVERY_CELL = [*cells_by_name(), TwoTrack]


def built(cell, dtype="float64", seed=0):
    """A cell with weights that leave nothing at 0 or 1."""
    kinds = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
    kind = cell if isinstance(cell, type) else kinds.get(cell) or cell_named(cell)
    rng = generator(seed)
    made = kind.build(D, H, rng, dtype)
    for param in made.params:
        param[...] = 0.5 * floats(rng, *param.shape, dtype=dtype)
    return made


def two_windows(layer, seed=1):
    """Outputs, gradients and states of two windows of one state, copied."""
    rng, found = generator(seed), []
    for _ in range(2):
        hs = layer.forward(floats(rng, N, T, D))
        found += [hs, layer.backward(floats(rng, *hs.shape)), *layer.grads, *layer.get_state()]
        found = [array.copy() for array in found]
    return found


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", PAIRS)
def test_the_cells_of_the_windows_give_what_the_windows_give(name):
    cell, window = PAIRS[name]
    made = built(cell)
    by_window = window(*(param.copy() for param in made.params), stateful=True)
    by_cell = TimeCell(made, stateful=True)
    for a, b in zip(two_windows(by_window), two_windows(by_cell), strict=True):
        close(a, b, 1e-12)
    for a, b in zip(by_window.dstate, by_cell.dstate, strict=True):
        close(a, b, 1e-12)


@pytest.mark.parametrize("name", ["LSTM"])
def test_gradients_of_the_states_after_the_last_step_go_in_as_in_a_window(name):
    cell, window = PAIRS[name]
    made, rng = built(cell), generator(3)
    xs, dhs, dc = floats(rng, N, T, D), floats(rng, N, T, H), floats(rng, N, H)
    found = []
    for layer in (window(*(param.copy() for param in made.params)), TimeCell(made)):
        layer.forward(xs)
        found.append([layer.backward(dhs, dc), *layer.grads, layer.dh, layer.dc])
    for a, b in zip(*found, strict=True):
        close(a, b, 1e-12)


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_the_gradient_of_two_windows_is_that_of_the_loss(cell):
    layer, rng = TimeCell(built(cell), stateful=True), generator(4)
    layer.forward(floats(rng, N, T, D))
    state = layer.get_state()
    report = check_layer(
        layer,
        floats(rng, N, T, D),
        rng=rng,
        prepare=lambda: layer.set_state(*state),
        extra=lambda: {
            name: (array, gradient)
            for name, array, gradient in zip("hcs", state, layer.dstate, strict=False)
        },
    )
    assert report.ok, report


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_backward_twice_gives_the_same_answer_and_the_gradients_stay_where_they_are(cell):
    layer, rng = TimeCell(built(cell)), generator(5)
    held = list(layer.grads)
    hs = layer.forward(floats(rng, N, T, D))
    dhs = floats(rng, *hs.shape)
    first = [layer.backward(dhs).copy(), *(grad.copy() for grad in layer.grads)]
    for a, b in zip(first, [layer.backward(dhs), *held], strict=True):
        same(a, b)


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_an_output_that_is_changed_in_place_changes_no_gradient(cell):
    rng, found = generator(6), []
    xs, dhs = floats(rng, N, T, D), floats(rng, N, T, H)
    for change in (False, True):
        layer = TimeCell(built(cell))
        hs = layer.forward(xs)
        if change:
            hs += 1
        found.append([layer.backward(dhs), *(grad.copy() for grad in layer.grads)])
    for a, b in zip(*found, strict=True):
        same(a, b)


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_weight_drop_directions_and_stacks_take_any_cell(cell):
    rng = generator(7)
    xs = floats(rng, N, T, D)
    dropped = TimeWeightDrop(TimeCell(built(cell), stateful=True), 0.5, generator(8))
    whole = dropped.forward(xs)
    dropped.reset_state()
    dropped.train_flg = False
    assert float(abs(dropped.forward(xs) - whole).max()) > 1e-3
    both = TimeBidirectional(TimeCell(built(cell, seed=1)), TimeCell(built(cell, seed=2)))
    assert both.forward(xs).shape == (N, T, 2 * H)
    stack = TimeStack(D, H, 2, cell, bidirectional=True, stateful=True, rng=0, dtype="float64")
    assert stack.forward(xs).shape == (N, T, 2 * H)
    kept = stack.get_state()
    again = stack.forward(xs)
    stack.set_state(*kept)
    same(stack.forward(xs), again)


def models_of(cell):
    off = dict.fromkeys(("embed_dropout", "input_dropout", "output_dropout"), 0.0)
    yield lambda: Rnnlm(V, D, H, rng=0, cell=cell, num_layers=2)
    yield lambda: BetterRnnlm(V, H, H, 0.0, rng=0, cell=cell)
    yield lambda: AwdRnnlm(V, D, H, 2, hidden_dropout=0.0, weight_drop=0.5, **off, rng=0, cell=cell)


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_every_model_trains_stops_resumes_and_writes_with_any_cell(cell, tmp_path):
    corpus = ids(generator(9), V, 120)
    for make in models_of(cell):
        whole = RnnlmTrainer(make(), Momentum(0.1), on_record=lambda record: None, rng=generator())
        whole.fit(corpus[:-1], corpus[1:], 2, 4, 7, max_grad=0.25)
        first = RnnlmTrainer(make(), Momentum(0.1), on_record=lambda record: None, rng=generator())
        steps = first.iterations(corpus[:-1], corpus[1:], 2, 4, 7, max_grad=0.25)
        for _ in range(3):
            next(steps)
        write_checkpoint(tmp_path / "c.safetensors", first.state_dict())
        rest = RnnlmTrainer(make(), Momentum(0.1), on_record=lambda record: None, rng=generator(5))
        rest.load_state_dict(read_checkpoint(tmp_path / "c.safetensors"))
        rest.fit(corpus[:-1], corpus[1:], 2, 4, 7, max_grad=0.25)
        for a, b in zip(whole.model.params, rest.model.params, strict=True):
            same(a, b)
        text = whole.model.generate(1, 5, rng=0)
        assert len(text) == 6
        rest.model.save_params(tmp_path / "w.safetensors")
        fresh = make()
        fresh.load_params(tmp_path / "w.safetensors")
        assert fresh.generate(1, 5, rng=0) == text


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_model_with_any_cell_trains_as_the_model(copied):
    xs, ts = ids(generator(1), V, N, T), ids(generator(2), V, N, T)
    for make in models_of(TwoTrack):
        model = make()
        twin = copied(model)
        for _ in range(2):
            same(np.asarray(twin.forward(xs, ts)), np.asarray(model.forward(xs, ts)))
            for each in (model, twin):
                each.backward()
                for param, grad in zip(each.params, each.grads, strict=True):
                    param -= 0.5 * grad


def test_a_name_a_time_layer_a_cell_and_a_function_all_make_a_layer():
    for cell in ("gru", TimeGRU, GRU, lambda D, H, rng, dtype: GRU.build(D, H, rng, dtype)):
        model = Rnnlm(V, D, H, rng=0, dtype="float64", cell=cell)
        assert list(model.named_params())[1] == "gru.Wx"
    assert type(Rnnlm(V, D, H, cell="gru").layers[1]) is TimeGRU
    assert type(Rnnlm(V, D, H, cell=GRU).layers[1]) is TimeCell


def test_a_cell_of_ones_own_is_named_by_its_module():
    assert cell_named(f"{__name__}:TwoTrack") is TwoTrack
    with pytest.raises(ValueError, match=r"cell 'no\.such:Cell': it cannot be imported"):
        cell_named("no.such:Cell")
    with pytest.raises(ValueError, match=r"cell 'lstn': expected rnn, lstm, gru, .*min_gru"):
        cell_named("lstn")


BAD_FILES = {
    "needs_more": ("import no_such_module", r"cannot be imported \(ModuleNotFoundError: .*\)"),
    "unfinished": ("class Cell(", r"cannot be imported \(SyntaxError: .*\)"),
    "misspelt": ("x = nump.ones(3)", r"cannot be imported \(NameError: .*\)"),
    "many_lines": ("raise OSError('one\\ntwo')", r"cannot be imported \(OSError: one two\)"),
    "no_class": ("x = 1", r"expected one cell, a class derived from Layer, got none"),
    "two_classes": (
        "from common.layers import GRU, LSTM\nclass A(GRU): ...\nclass B(LSTM): ...",
        r"expected one cell, a class derived from Layer, got A, B",
    ),
}


@pytest.fixture(params=BAD_FILES)
def bad_file(request, tmp_path, monkeypatch):
    """A file in common/cells that is no cell: its name, and what is said of it."""
    text, message = BAD_FILES[request.param]
    (tmp_path / f"{request.param}.py").write_text(text)
    monkeypatch.setattr(cells, "__path__", [*cells.__path__, str(tmp_path)])
    yield request.param, rf"^common/cells/{request.param}\.py: .*{message}$"
    sys.modules.pop(f"{cells.__name__}.{request.param}", None)


def test_a_bad_file_is_named_in_one_line_and_leaves_the_other_cells_alone(bad_file):
    name, message = bad_file
    assert [cell_named(each).__name__ for each in ("lstm", "min_gru")] == ["TimeLSTM", "MinGRU"]
    with pytest.raises(ValueError, match=rf"cell 'lstn': expected rnn, .*{name}"):
        cell_named("lstn")
    for ask in (lambda: cell_named(name), lambda: Rnnlm(V, D, H, cell=name), cells_by_name):
        with pytest.raises(ValueError, match=message):
            ask()


def test_a_module_of_ones_own_that_fails_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "my_broken_cells.py").write_text("x = nump.ones(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^cell 'my_broken_cells:A': it cannot .*NameError"):
        cell_named("my_broken_cells:A")


def test_a_layer_that_reads_from_the_right_is_no_cell_of_a_language_model():
    with pytest.raises(TypeError, match="TimeBiLSTM: a language model reads from left to right"):
        Rnnlm(V, D, H, cell=TimeBiLSTM)


@pytest.mark.parametrize("thing", [TimeLSTM, LSTM, Affine(np.ones((D, H)), np.ones(H)), 3])
def test_what_is_no_cell_is_refused(thing):
    with pytest.raises(TypeError, match="TimeCell: expected a cell"):
        TimeCell(thing)


def test_a_cell_that_returns_other_states_than_it_says_is_named():
    cell = built("lstm")
    cell.forward = lambda x, h, c: h
    with pytest.raises(ValueError, match=r"LSTM: expected forward to return states of shapes"):
        TimeCell(cell).forward(floats(generator(), N, T, D))


def test_a_state_of_another_batch_is_refused_by_name():
    layer = TimeCell(built(TwoTrack), stateful=True)
    layer.forward(floats(generator(), N, T, D))
    with pytest.raises(ValueError, match=f"TimeCell: the state is kept for a batch of {N}"):
        layer.forward(floats(generator(), N + 1, T, D))


def test_backward_before_forward_names_the_layer():
    with pytest.raises(RuntimeError, match=r"^TimeCell\.backward: there is no forward pass"):
        TimeCell(built("lstm")).backward(floats(generator(), N, T, H))


def test_more_gradients_than_there_are_states_are_refused():
    layer = TimeCell(built("lstm"))
    hs = layer.forward(np.ones((N, T, D)))
    dc = np.ones((N, H))
    layer.backward(hs, dc)
    with pytest.raises(TypeError, match=r"TimeCell.backward: .* of 1 states at most .*, got 2"):
        layer.backward(hs, dc, dc)
