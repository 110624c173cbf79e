"""Every language-model script, from options to run folder, on corpora of seconds."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import config, kernels
from common.divergence import DivergenceError
from common.optimizer import Adam
from common.time_layers import TimeDropout
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from datasets import markov
from models import Rnnlm
from tests.train.processes import expect_same_run
from train import awd_rnnlm, better_rnnlm, evaluate, generate, rnnlm, simple_rnnlm
from train.run import language_model
from train.run.language_model import Training
from train.run.saved_options import saved_options
from train.run.saved_run import open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 700

SMALL = {
    "rnnlm": (rnnlm, {}),
    "simple_rnnlm": (simple_rnnlm, {"lr": 2.0}),
    "better_rnnlm": (better_rnnlm, {"dropout": 0.1}),
    "awd_rnnlm": (awd_rnnlm, {"embed_dropout": 0.0, "weight_drop": 0.2, "lr": 5.0}),
}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run_small(name, text_file, out, **changes):
    module, options = SMALL[name]
    sizes = {"wordvec_size": 16, "hidden_size": 16, "epochs": 2, "batch_size": 5, "time_size": 10}
    module.main(module.Options(corpus=str(text_file), out=out, **{**sizes, **options, **changes}))
    return out


@pytest.mark.gpu
def test_a_run_on_a_gpu_says_once_what_computes_and_learns_the_same(
    text_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(kernels.device, "_chosen", {})
    found = {}
    for where in ("cpu", "gpu"):
        monkeypatch.setattr(config, "GPU", where == "gpu")
        out = run_small("rnnlm", text_file, tmp_path / where, epochs=1, verbose=True)
        found[where] = json.loads((out / "results.json").read_text())["test_exact"]
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("| LSTM forward: a window in")]) == 1
    assert len([line for line in said if line.startswith("| softmax with loss: a kernel")]) == 1
    assert found["gpu"] == pytest.approx(found["cpu"], rel=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_a_run_leaves_a_folder_that_can_be_evaluated_and_generates(
    name, text_file, tmp_path, capsys
):
    out = run_small(name, text_file, tmp_path / "run")
    trained = capsys.readouterr().out
    assert "perplexity" in trained and "sample:" in trained and "curve saved" in trained

    names = {"config.json", "log.jsonl", "weights.safetensors", "results.json", "curve.png"}
    names |= {"checkpoint.safetensors", "vocabulary.json"}
    assert names == {path.name for path in out.iterdir()}
    results = json.loads((out / "results.json").read_text())
    assert results["test_exact"] < 1.5  # of 10 tokens; the text repeats itself
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in log if "valid" in record] == [1, 2]
    assert all(np.isfinite(record["loss"]) for record in log if "loss" in record)

    evaluate.main(evaluate.Options(out))
    printed = capsys.readouterr().out
    for number in ("valid_exact", "valid_book", "test_exact", "test_book"):
        assert f"{results[number]:.2f}" in printed

    generate.main(generate.Options(out, prompt="the cat", length=12, temperature=0.5))
    words = capsys.readouterr().out.split()
    assert words[:2] == ["the", "cat"] and len(words) > 2


def test_a_run_of_characters_is_measured_in_bits_too(text_file, tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        language_model, "draw_curve", lambda *_, **options: drawn.append(options["bits"])
    )
    run_small("rnnlm", text_file, tmp_path / "words", epochs=1)
    assert "bits" not in capsys.readouterr().out
    assert "bits" not in (tmp_path / "words" / "results.json").read_text()
    out = run_small("rnnlm", text_file, tmp_path / "chars", epochs=1, level="char")
    assert drawn == [False, True]
    shown = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    for name in ("valid_exact", "valid_book", "test_exact", "test_book"):
        assert results[f"{name}_bits"] == math.log2(results[name])
    valid, test = (f"{results[f'{split}_exact_bits']:.3f}" for split in ("valid", "test"))
    assert (
        f"validation perplexity {results['valid_exact']:.2f} | {valid} bits per character" in shown
    )
    evaluate.main(evaluate.Options(out))
    for printed in (shown, capsys.readouterr().out):
        for bits in (valid, test):
            assert f" | exact: {bits} bits per character\n" in printed


CHOSEN = {
    "gru twice": ("rnnlm", {"cell": "gru", "num_layers": 2}, ["gru", "gru"]),
    "rnn": ("rnnlm", {"cell": "rnn", "lr": 2.0}, ["rnn"]),
    "a cell from a file": ("rnnlm", {"cell": "min_gru"}, ["mingru"]),
    "one layer": ("better_rnnlm", {"cell": "lstm", "num_layers": 1, "dropout": 0.2}, ["lstm"]),
    "untied": (
        "better_rnnlm",
        {
            "cell": "gru",
            "num_layers": 3,
            "dropout": 0.0,
            "tied": False,
            "wordvec_size": 6,
            "lr": 2.0,
        },
        ["gru", "gru", "gru"],
    ),
    "regularized": (
        "awd_rnnlm",
        {"cell": "gru", "num_layers": 2, "wordvec_size": 6, "lr": 5.0},
        ["gru", "gru"],
    ),
}


@pytest.mark.parametrize("choice", CHOSEN)
def test_a_run_with_chosen_parts_goes_on_and_is_evaluated(choice, text_file, tmp_path, capsys):
    name, changes, kinds = CHOSEN[choice]
    sizes = {"wordvec_size": 8, "hidden_size": 8, **changes}
    whole = run_small(name, text_file, tmp_path / "whole", **sizes)
    out = run_small(name, text_file, tmp_path / "run", **{**sizes, "epochs": 1})
    module = SMALL[name][0]
    module.main(replace(saved_options(name, module.Options, out), epochs=2))
    expect_same_run(out, whole)

    model, _ = open_run(out)
    layers = [layer for layer in model.layers if getattr(layer, "state_names", ())]
    assert [layer.kind for layer in layers] == kinds
    dropouts = [layer.dropout_ratio for layer in model.layers if isinstance(layer, TimeDropout)]
    if "dropout" in changes:
        assert dropouts == [changes["dropout"]] * (len(kinds) + 1)
    if "tied" in changes:
        assert model.layers[0].params[0].shape == (10, 6)
        assert model.layers[-1].params[0].shape == (8, 10)

    capsys.readouterr()
    evaluate.main(evaluate.Options(out))
    results = json.loads((out / "results.json").read_text())
    assert f"{results['test_exact']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "changes", "other"),
    [
        ("rnnlm", {"cell": "gru"}, "--cell gru, got lstm"),
        ("better_rnnlm", {"num_layers": 1}, "--num-layers 1, got 2"),
        ("better_rnnlm", {"tied": False}, "--tied False, got True"),
        ("better_rnnlm", {"dropout": 0.25}, r"--dropout 0\.25, got 0\.5"),
    ],
)
def test_the_parts_of_a_model_do_not_change_when_its_run_goes_on(
    name, changes, other, text_file, tmp_path
):
    out = run_small(name, text_file, tmp_path / "run", epochs=1, **changes)
    module = SMALL[name][0]
    saved = saved_options(name, module.Options, out)
    defaults = {"cell": "lstm"} if "cell" in changes else {}
    for option in changes.keys() - defaults.keys():
        defaults[option] = getattr(module.Options(), option)
    with pytest.raises(ValueError, match=f"the run was made with {other}; "):
        module.main(replace(saved, epochs=2, **defaults))


@pytest.mark.parametrize("name", ["rnnlm", "better_rnnlm", "awd_rnnlm"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": "lstn"}, "cell 'lstn': expected rnn, lstm, gru, .*, or module:Class"),
        ({"cell": "no.such:Cell"}, r"cell 'no\.such:Cell': it cannot be imported"),
        ({"cell": ".:Cell"}, r"cell '\.:Cell': it cannot be imported"),
        ({"cell": "common.layers:Affine"}, "cell 'common.layers:Affine': Affine"),
        ({"cell": "common.time_layers:TimeBiLSTM"}, "cell 'common.time_layers:TimeBiLSTM': "),
        ({"num_layers": 0}, "num_layers of 1 or more, got 0"),
    ],
)
def test_parts_that_do_not_exist_are_refused_before_there_is_a_folder(
    name, changes, message, text_file, tmp_path
):
    with pytest.raises(ValueError, match=message):
        run_small(name, text_file, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(text_file, tmp_path):
    a = run_small("better_rnnlm", text_file, tmp_path / "a")
    b = run_small("better_rnnlm", text_file, tmp_path / "b")
    c = run_small("better_rnnlm", text_file, tmp_path / "c", seed=2)
    weights = [(run / "weights.safetensors").read_bytes() for run in (a, b, c)]
    assert weights[0] == weights[1] != weights[2]


def test_the_rate_falls_when_validation_does_not_improve_and_the_best_weights_stay(
    text_file, tmp_path, monkeypatch
):
    perplexities = iter([5.0, 7.0, 6.0, 4.0])
    monkeypatch.setattr(Training, "valid_perplexity", lambda training: next(perplexities))
    saved = []
    monkeypatch.setattr(
        "models.BetterRnnlm.save_params",
        lambda model, path, save=better_rnnlm.BetterRnnlm.save_params: (
            saved.append(path),
            save(model, path),
        ),
    )
    out = run_small("better_rnnlm", text_file, tmp_path / "run", epochs=4, lr=8.0)
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    rates = {record["epoch"]: record["lr"] for record in log if "lr" in record}
    assert rates == {1: 8.0, 2: 8.0, 3: 2.0, 4: 0.5}
    assert len(saved) == 2  # after epochs 1 and 4


def test_characters_train_as_words_do(text_file, tmp_path, capsys):
    out = run_small("rnnlm", text_file, tmp_path / "run", level="char")
    generate.main(generate.Options(out, prompt="th", length=20, greedy=True))
    assert capsys.readouterr().out.splitlines()[-1].startswith("th")


@pytest.mark.slow
def test_the_model_comes_within_two_percent_of_the_perplexity_that_nobody_can_beat():
    corpus = markov.load_corpus(train_size=200_000)
    model = Rnnlm(corpus.vocab_size, 16, 64, rng=1)
    optimizer = Adam(0.01)
    trainer = RnnlmTrainer(model, optimizer)
    for _ in range(3):
        trainer.fit(corpus.train[:-1], corpus.train[1:], 1, batch_size=10, time_size=10)
        optimizer.lr /= 4
    perplexity = eval_perplexity_exact(model, corpus.test, corpus.first_id)
    floor = markov.MarkovSource().perplexity_floor
    assert 0.99 * floor < perplexity < 1.02 * floor


def test_the_default_folder_is_the_next_free_one(text_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run_small("rnnlm", text_file, None, epochs=1)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["rnnlm-cats-1", "rnnlm-cats-2"]


def test_a_folder_with_a_run_is_not_overwritten(text_file, tmp_path):
    out = run_small("rnnlm", text_file, tmp_path / "run", epochs=1)
    before = (out / "weights.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already"):
        run_small("rnnlm", text_file, tmp_path / "run", epochs=1)
    assert (out / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        ({"batch_size": 0}, "--batch-size: expected 1 or more, got 0"),
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"lr": -1.0}, "learning rate"),
        ({"max_grad": 0.0}, "--max-grad: expected a norm above 0, got 0"),
        ({"batch_size": 2000}, "at least 20,001 training tokens for --batch-size 2000"),
        ({"checkpoint_every": -1.0}, "--checkpoint-every: expected minutes"),
        ({"checkpoint_every": float("nan")}, "--checkpoint-every: expected minutes"),
    ],
)
def test_numbers_that_cannot_work_are_refused(changes, message, text_file, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_small("rnnlm", text_file, tmp_path / "run", **changes)


def test_a_divided_rate_that_explodes_stops_with_advice(text_file, tmp_path):
    with pytest.raises(
        DivergenceError, match=r"smaller learning rate.* --lr or --max-grad, .*--on-nan"
    ):
        run_small("simple_rnnlm", text_file, tmp_path / "run", lr=1e38, max_grad=1e30)


class TestOpeningARun:
    def test_a_folder_without_a_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no config\.json"):
            open_run(tmp_path)

    def test_a_damaged_config(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ValueError, match="not the config of a run"):
            open_run(tmp_path)

    def test_a_script_that_we_do_not_know(self, tmp_path):
        (tmp_path / "config.json").write_text('{"script": "gpt", "options": {}}')
        with pytest.raises(ValueError, match="trains language models, got 'gpt'"):
            open_run(tmp_path)

    def test_an_option_that_we_do_not_know(self, text_file, tmp_path):
        out = run_small("rnnlm", text_file, tmp_path / "run", epochs=1)
        config = json.loads((out / "config.json").read_text())
        config["options"]["depth"] = 3
        (out / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="depth"):
            open_run(out)

    def test_weights_that_are_not_there(self, text_file, tmp_path):
        out = run_small("rnnlm", text_file, tmp_path / "run", epochs=1)
        (out / "weights.safetensors").unlink()
        with pytest.raises(FileNotFoundError):
            open_run(out)

    def test_a_text_that_has_changed_since(self, text_file, tmp_path):
        out = run_small("rnnlm", text_file, tmp_path / "run", epochs=1)
        text_file.write_text(TEXT.replace("dog", "dog and bird"), encoding="utf-8")
        with pytest.raises(ValueError, match="is a run of another text: the vocabulary"):
            open_run(out)
