"""What changes while a run goes on: its learning rate, and which weights count."""

import io
import json
import re
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from common.files.tensors import read_checkpoint
from common.time_layers import TimeSampledOutputWithLoss
from common.util import eval_perplexity_exact
from tests.train.processes import expect_same_run
from tests.train.run.interrupting import after_iterations
from train import awd_rnnlm, rnnlm
from train.benchmark.run_records import record_of_run
from train.run import language_model
from train.run.language_model import Training
from train.run.process import Stopped
from train.run.saved_options import saved_options
from train.run.saved_run import open_run

TEXT = "the cat sat on the mat .\nthe dog ran to the cat .\n" * 200
SMALL = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 5, "time_size": 10, "log_interval": 7}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(text_file, out, **options):
    rnnlm.main(rnnlm.Options(corpus=str(text_file), out=out, **{**SMALL, **options}))
    return logged(out)


def logged(out):
    """Records of the training, and the validation perplexities."""
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [r for r in log if "loss" in r], [r["valid"] for r in log if "valid" in r]


def validations_are(monkeypatch, values):
    """Let the validation after epoch k give ``values[k - 1]``."""
    monkeypatch.setattr(Training, "valid_perplexity", lambda run: values[run.trainer.epoch - 1])


def after_epochs(monkeypatch, look):
    """What ``look(trainer)`` returns after each epoch, when it is validated."""
    seen = []
    after_iterations(
        monkeypatch, lambda trainer: trainer.column == 0 and seen.append(look(trainer))
    )
    return seen


def visible(drawn):
    """What is left on a terminal: what stands between two returns overwrites what stood there."""
    lines = []
    for line in drawn.split("\n"):
        seen = ""
        for part in line.split("\r"):
            seen = part + seen[len(part) :]
        lines.append(seen.rstrip())
    return lines


def on_a_terminal(monkeypatch):
    """Stands for a terminal on stdout."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


def test_each_epoch_leaves_one_line_on_a_terminal(text_file, tmp_path, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    run(text_file, tmp_path / "run", epochs=3)
    assert "| epoch 2 | iteration 7 / " in terminal.getvalue()
    epochs = [line for line in visible(terminal.getvalue()) if line.startswith("| ")]
    assert len(epochs) == 3
    for line in epochs:
        assert re.fullmatch(
            r"\| epoch \d \| \d+ s, \d\d:\d\d left \| validation perplexity [\d.]+", line
        )


def test_a_run_that_breaks_off_leaves_nothing_on_a_terminal(text_file, tmp_path, monkeypatch):
    terminal = on_a_terminal(monkeypatch)

    def stop(trainer):
        if trainer.iteration == 8:
            raise Stopped(15)

    after_iterations(monkeypatch, stop)
    with pytest.raises(Stopped):
        run(text_file, tmp_path / "run")
    assert "| epoch 1 | iteration 7 / " in terminal.getvalue()
    assert not any("iteration" in line for line in visible(terminal.getvalue()))


def test_a_run_that_is_asked_to_stop_wipes_its_line_before_it_validates(
    text_file, tmp_path, monkeypatch
):
    terminal = on_a_terminal(monkeypatch)
    seen = []

    def measure(training):
        seen.append(visible(terminal.getvalue())[-1])
        return 100.0

    monkeypatch.setattr(Training, "valid_perplexity", measure)
    after_iterations(
        monkeypatch, lambda trainer: trainer.iteration == 8 and signal.raise_signal(15)
    )
    with pytest.raises(Stopped):
        run(text_file, tmp_path / "run")
    assert seen == [""]
    assert visible(terminal.getvalue())[-4:-2] == [
        "| stopped after iteration 9, checkpoint written",
        "| validation perplexity 100.00",
    ]


def test_the_rate_follows_the_schedule_and_every_validation_that_was_no_improvement(
    text_file, tmp_path, monkeypatch
):
    validations_are(monkeypatch, [100.0, 90.0, 90.0, 95.0])
    seen = after_epochs(monkeypatch, lambda trainer: [trainer.schedule(k) for k in range(4)])
    run(text_file, tmp_path / "run", lr=8.0, lr_schedule="linear", epochs=4, lr_decay=2.0)
    undivided = [8.0, 6.0, 4.0, 2.0]
    assert seen == [[rate / by for rate in undivided] for by in (1, 1, 2, 4)]


def test_a_rate_that_was_divided_stays_so_when_the_run_goes_on(text_file, tmp_path, monkeypatch):
    validations_are(monkeypatch, [100.0, 90.0, 90.0, 95.0, 80.0])
    out = tmp_path / "run"
    run(text_file, out, lr=8.0, lr_decay=2.0, epochs=4)
    rnnlm.main(replace(saved_options("rnnlm", rnnlm.Options, out), epochs=5))
    records, _ = logged(out)
    assert {record["epoch"]: record["lr"] for record in records} == {1: 8, 2: 8, 3: 8, 4: 4, 5: 2}


def test_a_run_stops_after_epochs_without_a_better_validation(
    text_file, tmp_path, monkeypatch, capsys
):
    # 90 again is no improvement, and the two before 80 are not added to those after it
    validations_are(monkeypatch, [100.0, 90.0, 90.0, 95.0, 80.0, 81.0, 80.0, 85.0])
    out = tmp_path / "run"
    _, valid = run(text_file, out, epochs=9, stop_after=3)
    assert valid == [100.0, 90.0, 90.0, 95.0, 80.0, 81.0, 80.0, 85.0]
    assert capsys.readouterr().out.endswith(" s of training, stopped early: best after epoch 5)\n")
    results = json.loads((out / "results.json").read_text())
    assert (results["epochs"], results["stopped_early"]) == (8, True)
    assert json.loads((out / "config.json").read_text())["options"]["stop_after"] == 3
    assert record_of_run(out).epochs == 8


def test_a_run_that_comes_to_its_last_epoch_was_not_stopped_early(
    text_file, tmp_path, monkeypatch, capsys
):
    validations_are(monkeypatch, [100.0, 101.0, 102.0])
    run(text_file, tmp_path / "run", epochs=3, stop_after=2)
    assert capsys.readouterr().out.endswith(" s of training)\n")
    assert not json.loads((tmp_path / "run/results.json").read_text())["stopped_early"]


def test_a_run_that_was_stopped_early_is_finished_until_more_epochs_may_be_in_vain(
    text_file, tmp_path, monkeypatch, capsys
):
    validations_are(monkeypatch, [100.0, 90.0, 91.0, 92.0, 89.0, 95.0])
    unbroken, out = tmp_path / "unbroken", tmp_path / "run"
    run(text_file, unbroken, epochs=6, stop_after=3)
    run(text_file, out, epochs=6, stop_after=1)
    files = {path: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    saved = saved_options("rnnlm", rnnlm.Options, out)
    rnnlm.main(saved)
    assert capsys.readouterr().out.endswith(
        "is finished: 3 epochs done, stopped early: best after epoch 2; "
        "more with a larger --stop-after\n"
    )
    assert {path: path.read_bytes() for path in out.iterdir()} == files
    rnnlm.main(replace(saved, stop_after=2))
    assert logged(out)[1] == [100.0, 90.0, 91.0, 92.0]
    rnnlm.main(replace(saved, stop_after=3))
    expect_same_run(out, unbroken)


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_that_was_killed_stops_early_where_one_does_that_was_not(
    epoch, text_file, tmp_path, monkeypatch
):
    validations_are(monkeypatch, [100.0, 90.0, 91.0, 92.0, 89.0])
    run(text_file, tmp_path / "unbroken", epochs=5, stop_after=2)

    def stop(trainer):
        if trainer.epoch == epoch and trainer.column > 100:
            raise Stopped(15)

    with monkeypatch.context() as context, pytest.raises(Stopped):
        after_iterations(context, stop)
        run(text_file, tmp_path / "run", epochs=5, stop_after=2, checkpoint_every=1e-9)
    rnnlm.main(
        replace(saved_options("rnnlm", rnnlm.Options, tmp_path / "run"), checkpoint_every=5.0)
    )
    expect_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_averaging_begins_where_validation_stops_improving(text_file, tmp_path, monkeypatch):
    # 91 is worse than 90, and that is not the one before it
    validations_are(monkeypatch, [100.0, 90.0, 95.0, 91.0, 99.0])
    seen = after_epochs(monkeypatch, lambda trainer: trainer.average)
    run(text_file, tmp_path / "run", average="asgd", average_window=1, epochs=5)
    *before, begun, later = seen
    assert before == [None] * 3
    assert begun.decay is None
    assert later is begun


def test_the_picture_names_model_text_and_the_best_validation(text_file, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        language_model, "draw_curve", lambda *_, title, **options: drawn.append(title)
    )
    validations_are(monkeypatch, [100.0, 90.0, 95.0])
    run(text_file, tmp_path / "run", epochs=3)
    assert drawn == ["Rnnlm on cats: validation 90.00"]


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
        sampled_classes=6,
        **SMALL,
    )
    valid = [10.0, 5.0, 6.0, 7.0, 6.0, 6.0]  # the fourth starts averaging
    validations_are(monkeypatch, valid)
    awd_rnnlm.main(replace(options, out=tmp_path / "unbroken"))

    def stop(trainer):
        if trainer.epoch == 4 and trainer.column > 200:
            raise Stopped(15)

    with monkeypatch.context() as context, pytest.raises(Stopped):
        after_iterations(context, stop)
        awd_rnnlm.main(replace(options, out=tmp_path / "run"))
    assert read_checkpoint(tmp_path / "run/checkpoint.safetensors")["trainer"]["average"]
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


def test_the_last_epochs_take_the_whole_softmax(text_file, tmp_path, monkeypatch):
    sampled = []
    forward = TimeSampledOutputWithLoss.forward

    def noting(layer, xs, ts):
        if layer.train_flg:
            sampled.append(layer.sampling)
        return forward(layer, xs, ts)

    monkeypatch.setattr(TimeSampledOutputWithLoss, "forward", noting)
    sizes = {"corpus": str(text_file), "num_layers": 2, "sampled_classes": 6, **SMALL}
    options = awd_rnnlm.Options(**sizes, epochs=3, whole_epochs=2, average="none")
    awd_rnnlm.main(replace(options, out=tmp_path / "run"))
    first = sampled.index(False)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert first == next(line["step"] for line in log if "valid" in line)
    assert sampled == [True] * first + [False] * (len(sampled) - first)
    with pytest.raises(ValueError, match="--epochs 3, got 4"):
        again = saved_options("awd_rnnlm", awd_rnnlm.Options, tmp_path / "run")
        awd_rnnlm.main(replace(again, epochs=4))


def test_the_words_of_a_sampled_softmax_are_drawn_by_how_frequent_they_are(
    text_file, tmp_path, monkeypatch
):
    given = []
    monkeypatch.setattr(
        TimeSampledOutputWithLoss, "set_counts", lambda layer, counts: given.append(counts)
    )
    sizes = {"corpus": str(text_file), "num_layers": 2, "sampled_classes": 6, **SMALL}
    awd_rnnlm.main(awd_rnnlm.Options(**sizes, epochs=1, average="none", out=tmp_path / "run"))
    (counts,) = given
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert counts.sum() == config["corpus"]["splits"]["train"]["tokens"]
