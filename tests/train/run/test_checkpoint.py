"""Scripts broken off at every kind of place go on as if nothing had been."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest

from common.trainer import RnnlmTrainer
from models import Rnnlm
from tests.train.processes import TEXT, expect_same_run, log_of
from tests.train.run.interrupting import Broken, after_iterations, break_at
from train import better_rnnlm, rnnlm, simple_rnnlm
from train.run import checkpoint, language_model
from train.run.process import Stopped
from train.run.saved_options import saved_options

SCRIPTS = {"rnnlm": rnnlm, "simple_rnnlm": simple_rnnlm, "better_rnnlm": better_rnnlm}
SIZES = {
    "wordvec_size": 6,
    "hidden_size": 6,
    "batch_size": 8,
    "time_size": 11,
    "epochs": 3,
    "lr": 2.0,
    "lr_decay": 1.5,
    "log_interval": 7,
    "checkpoint_every": 1e-9,
}
WINDOWS = 20  # of each epoch, the last one shorter


@pytest.fixture(autouse=True, scope="module")
def quick():
    """It is processes that end here, not machines; and what pictures show is tested elsewhere."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(os, "fsync", lambda descriptor: None)
        context.setattr(language_model, "draw_curve", lambda *_, path, **options: path.touch())
        yield


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def options_of(script, text_file, out, **changes):
    return SCRIPTS[script].Options(corpus=str(text_file), out=out, **{**SIZES, **changes})


def resumed(script, folder, **changes):
    """The options with which the command line goes on."""
    return replace(saved_options(script, SCRIPTS[script].Options, folder), **changes)


PLACES = {
    "before the first checkpoint": ("RnnlmTrainer._gradients", 1),
    "after one iteration": ("RnnlmTrainer._gradients", 2),
    "within an interval": ("RnnlmTrainer._gradients", 18),
    "at the short last window": ("RnnlmTrainer._gradients", WINDOWS),
    "in the first validation": ("train.run.language_model.eval_perplexity_exact", 1),
    "in the second epoch": ("RnnlmTrainer._gradients", WINDOWS + 5),
    "in the last validation": ("train.run.language_model.eval_perplexity_exact", 3),
    "in the final evaluation": ("train.run.language_model.evaluate", 1),
    "in the final sample": ("train.run.language_model.print_sample", 1),
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, quick):
    """The folder of a whole run of each script, made when asked for."""
    base = tmp_path_factory.mktemp("unbroken")
    (base / "cats.txt").write_text(TEXT, encoding="utf-8")

    def make(script):
        out = base / script
        if not out.exists():
            SCRIPTS[script].main(options_of(script, base / "cats.txt", out))
        return out

    return make


@pytest.mark.parametrize("place", PLACES)
def test_a_run_broken_anywhere_goes_on_as_if_nothing_had_been(
    place, text_file, tmp_path, monkeypatch, unbroken
):
    out = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, *PLACES[place])
        better_rnnlm.main(options_of("better_rnnlm", text_file, out))
    better_rnnlm.main(resumed("better_rnnlm", out))
    expect_same_run(out, unbroken("better_rnnlm"))


@pytest.mark.parametrize("script", ["rnnlm", "simple_rnnlm"])
def test_every_script_goes_on(script, text_file, tmp_path, monkeypatch, unbroken):
    out = tmp_path / "run"
    for call in (20, WINDOWS + 3):  # broken off twice
        options = resumed(script, out) if out.exists() else options_of(script, text_file, out)
        with monkeypatch.context() as context, pytest.raises(Broken):
            break_at(context, "RnnlmTrainer._gradients", call)
            SCRIPTS[script].main(options)
    SCRIPTS[script].main(resumed(script, out))
    expect_same_run(out, unbroken(script))


def test_without_timed_checkpoints_the_end_of_an_epoch_is_one(
    text_file, tmp_path, monkeypatch, unbroken, capsys
):
    out = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "RnnlmTrainer._gradients", 2 * WINDOWS - 1)
        better_rnnlm.main(options_of("better_rnnlm", text_file, out, checkpoint_every=0))
    capsys.readouterr()
    better_rnnlm.main(resumed("better_rnnlm", out))
    assert f"goes on after iteration {WINDOWS}, 1 epochs done" in capsys.readouterr().out
    expect_same_run(out, unbroken("better_rnnlm"))


def test_a_half_written_last_line_and_a_half_written_file_are_removed(
    text_file, tmp_path, monkeypatch, unbroken
):
    out = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "RnnlmTrainer._gradients", 30)
        better_rnnlm.main(options_of("better_rnnlm", text_file, out))
    with open(out / "log.jsonl", "a") as file:
        file.write('{"epoch": 1, "itera')
    (out / ".checkpoint.safetensors.x1y2").write_bytes(b"half")
    better_rnnlm.main(resumed("better_rnnlm", out))
    expect_same_run(out, unbroken("better_rnnlm"))


def test_a_finished_run_says_so_and_more_epochs_go_on_with_it(
    text_file, tmp_path, capsys, monkeypatch, unbroken
):
    out = tmp_path / "run"
    better_rnnlm.main(options_of("better_rnnlm", text_file, out, epochs=2))
    files = {path: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    better_rnnlm.main(resumed("better_rnnlm", out))
    assert "is finished: 2 epochs done; more with a larger --epochs" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.iterdir()} == files

    def stop(trainer):
        raise Stopped(15)

    with monkeypatch.context() as context, pytest.raises(Stopped):
        after_iterations(context, stop)
        better_rnnlm.main(resumed("better_rnnlm", out, epochs=3))
    assert not (out / "results.json").exists()  # it was of other weights
    better_rnnlm.main(resumed("better_rnnlm", out))
    expect_same_run(out, unbroken("better_rnnlm"))
    assert json.loads((out / "config.json").read_text())["options"]["epochs"] == 3


def test_a_stop_within_the_run_keeps_it_and_says_how_to_go_on(
    text_file, tmp_path, monkeypatch, unbroken, capsys
):
    out, gradients = tmp_path / "run", RnnlmTrainer._gradients

    def signalled(trainer, *arguments):
        if trainer.iteration == 30:
            signal.raise_signal(signal.SIGTERM)
        return gradients(trainer, *arguments)

    with monkeypatch.context() as context, pytest.raises(Stopped) as stopped:
        context.setattr(RnnlmTrainer, "_gradients", signalled)
        better_rnnlm.main(options_of("better_rnnlm", text_file, out, checkpoint_every=0))
    assert stopped.value.exit_code == 143
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3] == "| stopped after iteration 31, checkpoint written"
    assert printed[-2].startswith("| validation perplexity ")
    assert printed[-1] == f"to go on: python -m train.better_rnnlm --resume {out}"
    better_rnnlm.main(resumed("better_rnnlm", out))
    expect_same_run(out, unbroken("better_rnnlm"))


def test_a_stop_among_characters_says_bits_too(text_file, tmp_path, monkeypatch, capsys):
    after_iterations(monkeypatch, lambda trainer: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Stopped):
        rnnlm.main(options_of("rnnlm", text_file, tmp_path / "run", level="char"))
    *_, measured, _ = capsys.readouterr().out.splitlines()
    perplexity, bits = measured.removeprefix("| validation perplexity ").split(" | ")
    assert bits.endswith(" bits per character")
    assert float(bits.split()[0]) == pytest.approx(math.log2(float(perplexity)), abs=0.01)


def test_updates_that_are_skipped_are_counted_to_the_end(text_file, tmp_path, monkeypatch, capsys):
    out, forward, calls = tmp_path / "run", Rnnlm.forward, []

    def spoilt(model, xs, ts, train_flg=True):
        calls.append(1)
        loss = forward(model, xs, ts, train_flg)
        return loss * math.nan if len(calls) in (4, 10) else loss

    monkeypatch.setattr(Rnnlm, "forward", spoilt)
    rnnlm.main(options_of("rnnlm", text_file, out, epochs=1, on_nan="skip"))
    assert f"2 of {WINDOWS} updates skipped" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["skipped"] == 2
    assert [record["skipped"] for record in log_of(out) if "skipped" in record][-1] == 2


class TestWhatDoesNotFit:
    @pytest.fixture
    def run(self, text_file, tmp_path):
        rnnlm.main(options_of("rnnlm", text_file, tmp_path / "run", epochs=1))
        return tmp_path / "run"

    def test_another_option(self, run):
        message = (
            r"the run was made with --lr 2\.0, got 3\.0; --seed 1, got 4; .* only --epochs, "
            r"--stop-after, --corpus, --data-dir, --checkpoint-every, --on-nan, --tensorboard, "
            r"--verbose may change"
        )
        with pytest.raises(ValueError, match=message):
            rnnlm.main(resumed("rnnlm", run, lr=3.0, seed=4))

    def test_another_script(self, run):
        with pytest.raises(ValueError, match=r"is a run of rnnlm: python -m train\.rnnlm --resume"):
            saved_options("better_rnnlm", better_rnnlm.Options, run)

    def test_fewer_epochs_than_are_done(self, run):
        rnnlm.main(resumed("rnnlm", run, epochs=2))
        with pytest.raises(ValueError, match=r"--epochs 1: the run in .* is in epoch 2"):
            rnnlm.main(resumed("rnnlm", run, epochs=1))

    def test_a_text_that_has_changed_since(self, run, text_file):
        text_file.write_text(TEXT.replace("the dog ran", "the dog sat", 5), encoding="utf-8")
        with pytest.raises(ValueError, match="is a run of another text: the vocabulary, train"):
            rnnlm.main(resumed("rnnlm", run, epochs=2))

    def test_a_config_that_has_changed_since(self, run):
        config = json.loads((run / "config.json").read_text())
        config["options"]["max_grad"] = 1.0
        (run / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"made with max_grad 0\.25, now 1\.0 in config"):
            rnnlm.main(resumed("rnnlm", run, epochs=2))

    def test_weights_without_a_checkpoint(self, run):
        (run / "checkpoint.safetensors").unlink()
        with pytest.raises(ValueError, match="weights but no checkpoint to go on from"):
            rnnlm.main(resumed("rnnlm", run, epochs=2))

    def test_a_damaged_checkpoint(self, run):
        file = run / "checkpoint.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            rnnlm.main(resumed("rnnlm", run, epochs=2))

    def test_no_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
            saved_options("rnnlm", rnnlm.Options, tmp_path)


def test_another_version_is_told(text_file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "version_of", lambda _: "0.0.1")
        rnnlm.main(options_of("rnnlm", text_file, out, epochs=1))
    rnnlm.main(resumed("rnnlm", out, epochs=2))
    assert "note: time-layers 0.0.1 when the run began" in capsys.readouterr().err
