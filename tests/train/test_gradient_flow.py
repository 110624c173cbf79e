"""The published norms, gradients of trained models against differences, and a small run."""

import json
from pathlib import Path

import numpy as np
import pytest

from models import Rnnlm
from train import gradient_flow
from train.gradient_flow import (
    CELLS,
    gradient_norms,
    matrix_norms,
    published_matrix,
    set_keep_bias,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "gradient_norms.json").read_text())
TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 60


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run_small(text_file, out, **changes):
    sizes = {"hidden_size": 6, "epochs": 1, "time_size": 4}
    options = {"corpus": str(text_file), "out": out, **sizes, **changes}
    gradient_flow.main(gradient_flow.Options(**options))
    return json.loads((out / "results.json").read_text())


def test_the_twenty_published_norms_are_met():
    assert (GOLDEN["seed"], GOLDEN["draws"]) == (3, [["Wh", [3, 3]]])
    norms = matrix_norms(published_matrix(), GOLDEN["T"], GOLDEN["N"])
    np.testing.assert_allclose(norms, GOLDEN["norms"], rtol=1e-12, atol=0)


def test_half_of_the_matrix_halves_once_more_at_every_step():
    norms = matrix_norms(published_matrix() / 2)
    powers = 2.0 ** np.arange(1, 21)
    np.testing.assert_allclose(norms * powers, GOLDEN["norms"], rtol=1e-12, atol=0)
    assert np.all(np.diff(norms) < 0)


def test_clipping_holds_the_explosion_and_does_nothing_for_what_vanishes():
    Wh = published_matrix()
    assert matrix_norms(Wh, max_norm=5.0)[0] == matrix_norms(Wh)[0]  # 4.94 in all: not yet
    np.testing.assert_allclose(matrix_norms(Wh, max_norm=5.0)[1:], 5.0 / 2, rtol=1e-6)
    assert matrix_norms(Wh / 2, max_norm=5.0) == matrix_norms(Wh / 2)


@pytest.mark.parametrize("cell", CELLS)
def test_the_norms_are_those_of_the_differences(cell):
    """The loss of the last prediction, as a function of the state k steps before it."""
    rng = np.random.default_rng(0)
    N, length, T, V, H = 3, 7, 4, 9, 5
    model = Rnnlm(V, H, H, rng=1, dtype="float64", cell=CELLS[cell])
    model.params[0][...] = rng.standard_normal((V, H))  # the embedding starts near zero
    xs, ts = rng.integers(0, V, (2, N, length))
    norms = gradient_norms(model, xs, ts, T)
    assert set(norms) == ({"dh", "dc"} if cell == "LSTM" else {"dh"})

    def loss(k, states):
        """Mean of -log p of the last targets, from the scores."""
        model.set_state([tuple(states)])
        scores = model.predict(xs[:, length - k :])[:, -1]
        log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return -log_p[np.arange(N), ts[:, -1]].mean()

    for k in (1, 2, T):
        model.reset_state()
        model.predict(xs[:, : length - k])
        states = model.get_state()[0]
        for name, array in zip(model.layers[1].state_names, states, strict=True):
            numeric = np.empty_like(array)
            for index in np.ndindex(array.shape):
                kept, sides = array[index], []
                for step in (1e-5, -1e-5):
                    array[index] = kept + step
                    sides.append(loss(k, states))
                array[index] = kept
                numeric[index] = (sides[0] - sides[1]) / 2e-5
            expected = N * np.linalg.norm(numeric, axis=1).mean()
            own = norms[f"d{name}"]
            assert own[k - T - 1] == pytest.approx(expected, rel=1e-6)

    model.reset_state()  # k = 0: the gradient of the softmax, through the output layer
    scores = model.predict(xs)[:, -1]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    p[np.arange(N), ts[:, -1]] -= 1
    W, _ = model.layers[-1].params
    assert len(norms["dh"]) == T + 1
    assert norms["dh"][0] == pytest.approx(np.linalg.norm(p @ W.T, axis=1).mean())


def test_the_gate_that_keeps_the_state_is_the_one_that_is_opened():
    for cell, letters in {"LSTM": "fgio", "GRU": "rzn"}.items():
        model = Rnnlm(9, 5, 5, rng=1, cell=CELLS[cell])
        set_keep_bias(model, 2.5)
        bias = model.layers[1].params[2].reshape(len(letters), 5)
        keeps = letters.index({"LSTM": "f", "GRU": "z"}[cell])
        assert np.all(bias[keeps] == 2.5)
        assert np.all(np.delete(bias, keeps, axis=0) == 0)
    set_keep_bias(Rnnlm(9, 5, 5, rng=1, cell="rnn"), 2.5)  # has no gate: nothing to do


def test_a_run_leaves_a_figure_and_the_numbers(text_file, tmp_path, capsys):
    results = run_small(text_file, tmp_path / "run")
    printed = capsys.readouterr().out
    figure = tmp_path / "run" / "gradient_flow.png"
    assert printed.endswith(f"saved to {figure}\n")
    assert 20_000 < figure.stat().st_size < 100_000
    np.testing.assert_allclose(results["matrix"]["Wh"], GOLDEN["norms"], rtol=1e-12)
    assert results["eigenvalue"] == pytest.approx(1.2552, abs=1e-4)
    for cell, of_cell in results["models"].items():
        assert f"{cell:<5} validation perplexity {of_cell['valid']:7.2f}" in printed
        assert len(of_cell["norms"]["dh"]) == 5
        assert np.all(np.isfinite(of_cell["norms"]["dh"]))
    assert len(results["models"]["LSTM"]["norms"]["dc"]) == 4
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {record["cell"] for record in log} == {"RNN", "LSTM", "GRU"}


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(text_file, tmp_path, monkeypatch):
    monkeypatch.setattr(gradient_flow, "draw", lambda *_: None)
    runs = [run_small(text_file, tmp_path / str(k), seed=seed) for k, seed in enumerate((1, 1, 2))]
    norms = [[of_cell["norms"] for of_cell in run["models"].values()] for run in runs]
    assert norms[0] == norms[1] != norms[2]


@pytest.mark.slow
def test_with_the_defaults_the_rnn_forgets_before_the_lstm_and_the_lstm_before_the_gru(tmp_path):
    gradient_flow.main(gradient_flow.Options(out=tmp_path / "run"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rnn, lstm, gru = (m["norms"]["dh"] for m in results["models"].values())
    assert rnn[35] < 0.1 * lstm[35] < 0.01 * gru[35]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        ({"time_size": 0}, "--time-size: expected 1 or more, got 0"),
        ({"max_norm": 0.0}, "clip_grads: expected max_norm above 0, got 0.0"),
        ({"time_size": 500}, "expected at least 1001 validation tokens to follow 500 steps back"),
        ({"corpus": "nowhere.txt"}, "there is no such file or folder"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(changes, message, text_file, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_small(text_file, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()
