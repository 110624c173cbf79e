"""Code written against the book's ``common`` package runs on ours, unchanged."""

import ast
import inspect
import os
import re
import sys
import types
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import datasets
from common import time_layers
from common.base_model import BaseModel
from common.optimizer import SGD, Adam
from common.time_layers import TimeAffine, TimeSoftmaxWithLoss
from common.trainer import RnnlmTrainer, Trainer
from common.util import eval_perplexity

SEEDS = os.environ.get("TIMELAYERS_SEEDS") and Path(os.environ["TIMELAYERS_SEEDS"]).resolve()


@pytest.fixture
def tiny_ptb(monkeypatch, tmp_path):
    """A corpus of 1,501 tokens in place of PTB, no screen, and a folder to write in."""
    corpus = np.random.default_rng(0).integers(0, 50, 1501).astype(np.int32)
    word_to_id = {f"w{k}": k for k in range(50)}
    id_to_word = dict(enumerate(word_to_id))
    ptb = types.ModuleType("dataset.ptb")
    ptb.load_data = lambda split: (corpus, word_to_id, id_to_word)
    monkeypatch.setattr(datasets, "ptb", ptb, raising=False)
    monkeypatch.setitem(sys.modules, "dataset", datasets)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    return corpus


STAR_IMPORTS = """
from common.time_layers import *
from common.np import *
from common.base_model import BaseModel

class Tied(BaseModel):
    def __init__(self, V, H):
        table = (np.random.randn(V, H) / 10).astype("f")
        Wx = (np.random.randn(H, 4 * H) / np.sqrt(H)).astype("f")
        Wh = (np.random.randn(H, 4 * H) / np.sqrt(H)).astype("f")
        self.layers = [
            TimeEmbedding(table),
            TimeDropout(0.1),
            TimeLSTM(Wx, Wh, np.zeros(4 * H).astype("f"), stateful=True),
            TimeAffine(table.T, np.zeros(V)),  # tied by memory; a float64 bias besides
        ]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params, self.grads = [], []
        for layer in self.layers:
            self.params += layer.params
            self.grads += layer.grads
"""


def test_a_tied_model_behind_star_imports_learns_and_stays_tied(tiny_ptb):
    namespace = {}
    exec(STAR_IMPORTS, namespace)
    model = namespace["Tied"](50, 20)
    corpus = np.tile(np.arange(50, dtype=np.int32), 30)
    before = eval_perplexity(model, corpus)
    trainer = RnnlmTrainer(model, SGD(1.0))
    trainer.fit(corpus[:-1], corpus[1:], max_epoch=8, batch_size=5, time_size=10, max_grad=0.25)
    assert eval_perplexity(model, corpus) < before / 2
    table, output = model.layers[0].params[0], model.layers[-1].params[0]
    assert np.shares_memory(table, output)
    model.save_params("weights.safetensors")
    model.load_params("weights.safetensors")
    np.testing.assert_array_equal(table.T, output)
    assert isinstance(model, BaseModel)


def test_a_star_import_brings_the_layers_and_functions_of_one_step_too():
    brought = {}
    for name in ("functions", "layers", "np", "optimizer", "time_layers", "trainer", "util"):
        brought[name] = {}
        exec(f"from common.{name} import *", brought[name])
    everywhere = {"np"}
    functions = {"GPU", "cross_entropy_error", "softmax"} | everywhere
    of_one_step = {"Affine", "Dropout", "Embedding", "MatMul", "Sigmoid", "SigmoidWithLoss"}
    of_one_step |= {"Softmax", "SoftmaxWithLoss"} | functions
    over_time = {"TimeAffine", "TimeBiLSTM", "TimeDropout", "TimeEmbedding", "TimeGRU", "TimeLSTM"}
    over_time |= {"TimeRNN", "TimeSigmoidWithLoss", "TimeSoftmaxWithLoss", "GRU", "LSTM", "RNN"}
    rules = {"AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "SGD"}
    expected = {
        "functions": functions | {"relu", "sigmoid"},
        "layers": of_one_step,
        "np": {"GPU"} | everywhere,
        "optimizer": rules | {"GPU"} | everywhere,
        "time_layers": of_one_step | over_time | {"sigmoid"},
        "trainer": {"RnnlmTrainer", "Trainer", "clip_grads", "remove_duplicate"} | everywhere,
        "util": {"GPU", "clip_grads", "eval_perplexity", "eval_seq2seq", "to_cpu", "to_gpu"}
        | everywhere,
    }
    for name, names in expected.items():
        assert names <= brought[name].keys(), name


GATES = ["Wx", "Wh", "b"]
BOTH_WAYS = ["Wx1", "Wh1", "b1", "Wx2", "Wh2", "b2"]
ARGUMENTS = {  # to build, forward, backward
    "Affine": (["W", "b"], ["x"], ["dout"]),
    "Dropout": (["dropout_ratio"], ["x", "train_flg"], ["dout"]),
    "Embedding": (["W"], ["idx"], ["dout"]),
    "GRU": (GATES, ["x", "h_prev"], ["dh_next"]),
    "LSTM": (GATES, ["x", "h_prev", "c_prev"], ["dh_next", "dc_next"]),
    "MatMul": (["W"], ["x"], ["dout"]),
    "RNN": (GATES, ["x", "h_prev"], ["dh_next"]),
    "Sigmoid": ([], ["x"], ["dout"]),
    "SigmoidWithLoss": ([], ["x", "t"], ["dout"]),
    "Softmax": ([], ["x"], ["dout"]),
    "SoftmaxWithLoss": ([], ["x", "t"], ["dout"]),
    "TimeAffine": (["W", "b"], ["x"], ["dout"]),
    "TimeBiLSTM": ([*BOTH_WAYS, "stateful"], ["xs"], ["dhs"]),
    "TimeDropout": (["dropout_ratio"], ["xs"], ["dout"]),
    "TimeEmbedding": (["W"], ["xs"], ["dout"]),
    "TimeGRU": ([*GATES, "stateful"], ["xs"], ["dhs"]),
    "TimeLSTM": ([*GATES, "stateful"], ["xs"], ["dhs"]),
    "TimeRNN": ([*GATES, "stateful"], ["xs"], ["dhs"]),
    "TimeSigmoidWithLoss": ([], ["xs", "ts"], ["dout"]),
    "TimeSoftmaxWithLoss": ([], ["xs", "ts"], ["dout"]),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments_of_a_layer_have_the_names_by_which_readers_give_them(name):
    layer = getattr(time_layers, name)
    for method, names in zip(("__init__", "forward", "backward"), ARGUMENTS[name], strict=True):
        _, *given = inspect.signature(getattr(layer, method)).parameters
        assert given[: len(names)] == names, method


def test_one_line_gives_our_data_sets_the_name_by_which_the_book_imports_them(
    tmp_path, monkeypatch
):
    (tmp_path / "dataset.py").write_text("from datasets import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dataset", raising=False)
    namespace = {}
    try:
        exec("from dataset import ptb", namespace)
    finally:
        sys.modules.pop("dataset", None)
    assert namespace["ptb"] is datasets.ptb
    assert callable(namespace["ptb"].load_data)


def code_cells(text):
    """The code of every ``In [k]:`` cell: its longest beginning that is Python, magics removed."""
    for part in re.split(r"^In \[.*\]:\s*$", text, flags=re.MULTILINE)[1:]:
        lines = [line for line in part.splitlines() if not line.startswith("%")]
        for end in range(len(lines), 0, -1):
            code = "\n".join(lines[:end])
            try:
                ast.parse(code)
            except SyntaxError:
                continue
            yield code
            break


@pytest.mark.slow
@pytest.mark.skipif(not SEEDS, reason="TIMELAYERS_SEEDS does not name the folder of the documents")
def test_the_document_that_defines_both_models_runs_cell_by_cell(tiny_ptb, capsys):
    (document,) = SEEDS.glob("001_*.txt")
    namespace = {"__name__": "notebook"}
    ran = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a shown figure without a screen, and the like
        for code in code_cells(document.read_text(encoding="utf-8")):
            exec(compile(code, "<cell>", "exec"), namespace)
            ran.append(code)
    assert len(ran) >= 12
    assert type(namespace["model"]).__name__ == "BetterRnnlm"
    assert namespace["model"].layers[0].params[0].shape == (50, 650)
    assert np.isfinite(namespace["ppl_test"])
    assert Path("BetterRnnlm.safetensors").exists()
    assert "| epoch 4 |" in capsys.readouterr().out  # Rnnlm's four epochs
    assert Path("curve.png").exists()


def test_a_model_without_a_list_of_layers_is_trained_as_in_the_book():
    class Pair(BaseModel):
        """An encoder and a decoder that share nothing, as the book's Seq2seq."""

        def __init__(self):
            rng = np.random.default_rng(0)
            self.encoder = TimeAffine(rng.normal(size=(3, 4)), np.zeros(4))
            self.decoder = TimeAffine(rng.normal(size=(4, 5)), np.zeros(5))
            self.softmax = TimeSoftmaxWithLoss()
            self.params = self.encoder.params + self.decoder.params
            self.grads = self.encoder.grads + self.decoder.grads

        def forward(self, xs, ts):
            return self.softmax.forward(self.decoder.forward(self.encoder.forward(xs)), ts)

        def backward(self, dout=1):
            return self.encoder.backward(self.decoder.backward(self.softmax.backward(dout)))

    rng = np.random.default_rng(1)
    xs, ts = rng.normal(size=(12, 2, 3)), rng.integers(0, 5, (12, 2))
    trainer = Trainer(Pair(), Adam(lr=0.05), on_record=lambda record: None, rng=rng)
    trainer.fit(xs, ts, max_epoch=30, batch_size=4)
    assert trainer.curve[-1]["loss"] < 0.5 * trainer.curve[0]["loss"]
