"""The operations of a training, counted by hand and by the sizes of the speed benchmark."""

import json

import numpy as np
import pytest

from models import AwdRnnlm, BetterRnnlm, Rnnlm
from tests.train.processes import SIZES, TEXT
from train import better_rnnlm, rnnlm
from train.benchmark import training_cost
from train.benchmark.run_records import record_of_run
from train.benchmark.time_layers import build_model
from train.benchmark.training_cost import flops_per_token, training_flops
from train.benchmark.workloads import Sizes

V, D, H = 11, 5, 7
LSTM = (D + H) * 4 * H


def test_an_lstm_and_an_output_layer_by_hand():
    # x Wx and h Wh, and the output: a multiplication and an addition, once forward, twice back
    assert flops_per_token(Rnnlm(V, D, H, rng=1)) == 6 * (LSTM + H * V)


@pytest.mark.parametrize("model", ["Rnnlm", "BetterRnnlm"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_it_is_what_the_speed_benchmark_counts_a_step(model, cell):
    sizes = Sizes(model, cell, N=2, T=3, D=D if model == "Rnnlm" else H, H=H, V=V)
    assert flops_per_token(build_model(sizes)) * 2 * 3 == sizes.step_flops


def test_a_tied_matrix_counts_where_it_is_multiplied():
    tied, own = (BetterRnnlm(V, H, H, rng=1, tied=tied) for tied in (True, False))
    assert flops_per_token(tied) == flops_per_token(own) == 6 * (2 * 2 * H * 4 * H + H * V)


def test_products_inside_a_cell_count_and_gains_do_not():
    gating = 5 * D * H  # Q1, R2, Q3, R4, Q5
    assert flops_per_token(Rnnlm(V, D, H, rng=1, cell="mogrifier_lstm")) == 6 * (
        LSTM + gating + H * V
    )
    normalized = Rnnlm(V, D, H, rng=1, cell="layer_norm_lstm")
    assert flops_per_token(normalized) == 6 * (LSTM + H * V)


def test_weights_that_are_dropped_are_multiplied_once():
    model = AwdRnnlm(V, D, H, num_layers=2, weight_drop=0.5, rng=1)
    last = (H + D) * 4 * D  # as wide as the words
    assert flops_per_token(model) == 6 * (LSTM + last + D * V)


def test_of_a_sampled_softmax_the_classes_count_that_are_drawn_in_the_mean():
    model = AwdRnnlm(V, D, D, num_layers=1, hidden_dropout=0, sampled_classes=4, rng=1)
    lstm = 2 * D * 4 * D
    assert flops_per_token(model) == 6 * (lstm + D * 4)
    model.loss_layer.sampling = False
    assert flops_per_token(model) == 6 * (lstm + D * V)


def test_a_run_costs_what_its_streams_read(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text(TEXT, encoding="utf-8")
    sizes = {name.replace("-", "_"): value for name, value in SIZES.items()}
    options = rnnlm.Options(**sizes | {"corpus": str(file), "out": tmp_path / "run", "epochs": 2})
    rnnlm.main(options)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    tokens = config["corpus"]["splits"]["train"]["tokens"]
    words = len(json.loads((tmp_path / "run" / "vocabulary.json").read_text())["words"])
    N, D, H = (sizes[name] for name in ("batch_size", "wordvec_size", "hidden_size"))
    expected = 2 * ((tokens - 1) // N * N) * 6 * ((D + H) * 4 * H + H * words)
    assert training_flops(tmp_path / "run", epochs=2) == expected
    assert record_of_run(tmp_path / "run").training_flops == expected


def test_a_run_of_a_version_before_words_were_kept_has_no_figure(tmp_path):
    (tmp_path / "config.json").write_text('{"script": "rnnlm", "options": {"corpus": "ptb"}}')
    assert training_flops(tmp_path, 1) is None


def test_of_an_adaptive_softmax_nothing_is_said_since_it_depends_on_the_words(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text(TEXT, encoding="utf-8")
    sizes = {name.replace("-", "_"): value for name, value in SIZES.items()}
    sizes |= {"corpus": str(file), "out": tmp_path / "run", "epochs": 1, "output": "adaptive"}
    better_rnnlm.main(better_rnnlm.Options(**sizes))
    assert training_flops(tmp_path / "run", epochs=1) is None
    assert record_of_run(tmp_path / "run").training_flops is None


def test_the_speed_of_the_machine_is_that_of_its_fastest_product(monkeypatch):
    monkeypatch.setattr(training_cost, "matrix_peak", lambda make_product: 2.5e11)
    assert training_cost.gflops_of_this_machine() == 250.0
    product = training_cost.make_product(2, 3, 5)()
    assert product.shape == (2, 5) and product.dtype == np.float32
