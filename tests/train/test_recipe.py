"""Learning rates, averages and presets of the language-model scripts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from common.optimizer import SGD, Adam, AdamW
from common.trainer import RnnlmTrainer
from common.util import eval_perplexity_exact
from models import Rnnlm
from train import awd_rnnlm, rnnlm
from train.recipe import Recipe, build_optimizer
from train.trained import open_run

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


@pytest.mark.parametrize("average", ["asgd", "ema"])
def test_a_run_with_everything_goes_on_bit_for_bit(average, text_file, tmp_path, monkeypatch):
    from train.resume import saved_options
    from train.stopping import Stopped
    from train.training import Training

    options = awd_rnnlm.Options(
        corpus=str(text_file),
        epochs=4,
        num_layers=2,
        lr=30.0,
        checkpoint_every=1e-9,
        average=average,
        average_window=1,
        random_offset=True,
        unigram_bias=True,
        **SMALL,
    )
    awd_rnnlm.main(replace(options, out=tmp_path / "unbroken"))

    wait = Training._between_iterations

    def stop(self, trainer):
        wait(self, trainer)
        if trainer.iteration == 83:
            raise Stopped(15)

    monkeypatch.setattr(Training, "_between_iterations", stop)
    with pytest.raises(Stopped):
        awd_rnnlm.main(replace(options, out=tmp_path / "run"))
    monkeypatch.setattr(Training, "_between_iterations", wait)
    awd_rnnlm.main(saved_options("awd_rnnlm", awd_rnnlm.Options, tmp_path / "run"))
    weights = [
        (tmp_path / name / "weights.safetensors").read_bytes() for name in ("run", "unbroken")
    ]
    assert weights[0] == weights[1]


def test_presets_are_the_defaults_of_all_other_options(monkeypatch):
    from train.cli import run_command

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
