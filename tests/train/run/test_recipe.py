"""Learning rates, averages and presets of the language-model scripts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from train.recipe import Recipe, build_optimizer

from common import config
from common.files.checkpoint import read_checkpoint
from common.optimizer import SGD, Adam, AdamW
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from models import Rnnlm
from train import awd_rnnlm, rnnlm
from train.run.language_model import Training
from train.run.saved_options import saved_options
from train.run.saved_run import open_run
from train.run.signals import Stopped

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 200
SMALL = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 5, "time_size": 10, "log_interval": 7}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(text_file, out, module=rnnlm, **options):
    module.main(module.Options(corpus=str(text_file), out=out, **{**SMALL, **options}))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [r for r in log if "loss" in r], [r["valid"] for r in log if "valid" in r]


def untrained(**options):
    recipe = Recipe(rnnlm.Options(**options))
    trainer = RnnlmTrainer(Rnnlm(7, 3, 3, rng=0), SGD(1.0))
    recipe.attach(trainer)
    return recipe, trainer


@pytest.mark.parametrize(
    ("options", "kind", "weight_decay"),
    [
        ({}, SGD, 0.0),
        ({"weight_decay": 0.1}, SGD, 0.1),
        ({"optimizer": "adam"}, Adam, None),
        ({"optimizer": "adamw", "weight_decay": 0.1}, AdamW, 0.1),
    ],
)
def test_the_optimizer_is_the_one_that_is_named(options, kind, weight_decay):
    optimizer = build_optimizer(rnnlm.Options(lr=0.5, **options))
    assert type(optimizer) is kind
    assert optimizer.lr == 0.5
    assert getattr(optimizer, "weight_decay", None) == weight_decay


@pytest.mark.parametrize("options", [{"weight_decay": -1.0}, {"weight_decay": float("nan")}])
def test_a_weight_decay_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match="--weight-decay"):
        build_optimizer(rnnlm.Options(**options))


def test_adam_refuses_a_weight_decay_that_it_would_ignore():
    with pytest.raises(ValueError, match="adamw"):
        build_optimizer(rnnlm.Options(optimizer="adam", weight_decay=0.1))


def test_the_rate_follows_the_schedule_and_every_validation_that_was_no_improvement():
    recipe, trainer = untrained(lr=8.0, lr_schedule="linear", epochs=4, lr_decay=2.0)
    assert trainer.schedule(0) == 8.0
    assert trainer.schedule(1) == 6.0
    recipe.after_validation(trainer, [100.0, 90.0, 90.0, 95.0])
    assert trainer.schedule(2) == 4.0 / 2 / 2


def test_averaging_begins_where_validation_stops_improving():
    recipe, trainer = untrained(average="asgd", average_window=1)
    values = [100.0, 90.0, 95.0]
    for k in range(1, 4):
        recipe.after_validation(trainer, values[:k])
        assert trainer.average is None
    recipe.after_validation(trainer, [*values, 91.0])  # worse than 90, and that is not the last
    assert trainer.average.decay is None
    begun = trainer.average
    recipe.after_validation(trainer, [*values, 91.0, 99.0])
    assert trainer.average is begun


def test_a_run_logs_the_rates_of_its_schedule(text_file, tmp_path):
    records, _ = run(
        text_file, tmp_path / "run", epochs=2, lr=4.0, lr_schedule="linear", warmup=0.5
    )
    rates = [record["lr"] for record in records]
    assert rates[0] == 0  # the first update of a warm-up
    assert max(rates) > 3.5
    assert rates[-1] < 0.2


def test_the_weights_that_are_kept_are_those_that_were_validated(text_file, tmp_path):
    """With an average these are not the weights that go on training."""
    for average in ("none", "ema"):
        out = tmp_path / average
        _, valid = run(text_file, out, epochs=2, lr=2.0, average=average, average_decay=0.98)
        model, corpus = open_run(out)
        kept = eval_perplexity_exact(model, corpus.valid, corpus.first_id)
        assert kept == pytest.approx(min(valid), rel=1e-6)


def test_unigram_biases_start_lower(text_file, tmp_path):
    first = {}
    for unigram in (False, True):
        records, _ = run(text_file, tmp_path / str(unigram), epochs=1, unigram_bias=unigram)
        first[unigram] = records[0]["perplexity"]
    counts = np.unique(TEXT.replace("\n", " <eos> ").split(), return_counts=True)[1]
    p = counts / counts.sum()
    unigram_perplexity = np.exp(-(p * np.log(p)).sum())
    assert first[True] == pytest.approx(unigram_perplexity, rel=0.1)
    assert first[False] == pytest.approx(len(counts), rel=0.1)


def arrays(state):
    """Every array in a nested state, in order."""
    if isinstance(state, dict):
        return [array for key in sorted(state) for array in arrays(state[key])]
    return [state] if isinstance(state, np.ndarray) else []


@pytest.mark.parametrize("average", ["asgd", "ema"])
def test_a_run_with_everything_goes_on_bit_for_bit(average, text_file, tmp_path, monkeypatch):
    options = awd_rnnlm.Options(
        corpus=str(text_file),
        epochs=6,
        num_layers=2,
        lr=30.0,
        checkpoint_every=1e-9,
        average=average,
        average_window=1,
        random_offset=True,
        unigram_bias=True,
        **SMALL,
    )
    valid = [10.0, 5.0, 6.0, 7.0, 6.0, 6.0]  # the fourth starts averaging
    monkeypatch.setattr(Training, "_valid_perplexity", lambda run: valid[run.trainer.epoch - 1])
    awd_rnnlm.main(replace(options, out=tmp_path / "unbroken"))

    between_iterations = Training._between_iterations

    def stop(training, trainer):
        between_iterations(training, trainer)
        if trainer.epoch == 4 and trainer.column > 200:
            raise Stopped(15)

    monkeypatch.setattr(Training, "_between_iterations", stop)
    with pytest.raises(Stopped):
        awd_rnnlm.main(replace(options, out=tmp_path / "run"))
    assert read_checkpoint(tmp_path / "run/checkpoint.safetensors")["trainer"]["average"]
    monkeypatch.setattr(Training, "_between_iterations", between_iterations)
    awd_rnnlm.main(saved_options("awd_rnnlm", awd_rnnlm.Options, tmp_path / "run"))
    broken, unbroken = (
        read_checkpoint(tmp_path / name / "checkpoint.safetensors")["trainer"]
        for name in ("run", "unbroken")
    )
    assert broken["average"]["count"] == unbroken["average"]["count"]
    for a, b in zip(arrays(broken), arrays(unbroken), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_epochs_are_refused_where_the_rate_ends_with_them(text_file, tmp_path, capsys):
    out = tmp_path / "run"
    run(text_file, out, epochs=1, lr_schedule="cosine")
    with pytest.raises(ValueError, match="--epochs 1, got 2"):
        rnnlm.main(replace(saved_options("rnnlm", rnnlm.Options, out), epochs=2))
    rnnlm.main(saved_options("rnnlm", rnnlm.Options, out))
    assert capsys.readouterr().out.endswith("is finished: 1 epochs done\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam", "weight_decay": 0.1, "lr": 0.1}, "--weight-decay"),
        ({"optimizer": "adam"}, "--lr: expected at most 1"),
        ({"max_grad": 0.0}, "--max-grad"),
        ({"warmup": 4.0}, "--warmup"),
        ({"average_decay": 1.0}, "--average-decay"),
        ({"average_window": 0}, "--average-window"),
        ({"time_size": 5000}, "expected at least 25,001 training tokens"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(
    options, message, text_file, tmp_path
):
    with pytest.raises(ValueError, match=message):
        run(text_file, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_gpu_by_the_environment_is_written_down(text_file, tmp_path, monkeypatch):
    """As far as a machine without one can tell: the option is set before anything is computed."""
    seen = []

    def look(options):
        seen.append(options.gpu)
        raise ValueError("seen")

    monkeypatch.setattr(config, "GPU", True)
    monkeypatch.setattr("train.language_model.Recipe", look)
    with pytest.raises(ValueError, match="seen"):
        rnnlm.main(rnnlm.Options(corpus=str(text_file), out=tmp_path / "run"))
    assert seen == [True]


def test_presets_are_the_defaults_of_all_other_options(monkeypatch):
    from train.run.command import run_command

    seen = []
    for arguments in (["--preset", "cpu10"], ["--preset", "cpu10", "--lr", "3"], []):
        monkeypatch.setattr("sys.argv", ["train.awd_rnnlm", *arguments])
        run_command(seen.append, awd_rnnlm.Options)
    preset, changed, full = seen
    assert preset.num_layers == awd_rnnlm.Options.PRESETS["cpu10"]["num_layers"]
    assert changed == replace(preset, lr=3.0)
    assert full == awd_rnnlm.Options()


@pytest.mark.parametrize("preset", awd_rnnlm.Options.PRESETS)
def test_every_preset_builds_its_model(preset):
    options = awd_rnnlm.Options(preset=preset, **awd_rnnlm.Options.PRESETS[preset])
    model = options.build(50, np.random.default_rng(0))
    loss = model.forward(np.zeros((2, 3), int), np.ones((2, 3), int))
    model.backward()
    assert np.isfinite(loss)
