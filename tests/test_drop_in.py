"""Code written against the book's ``common`` package runs on ours, unchanged."""

import ast
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
