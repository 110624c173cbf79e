"""Runs of many short trainings: what was finished is kept, and only the rest is trained."""

from dataclasses import replace

import pytest

from common.files.tensors import read_checkpoint, write_checkpoint
from tests.train.run.interrupting import Broken, break_at
from train import char_rnn, memory
from train.run.saved_options import saved_options


@pytest.mark.parametrize(
    ("module", "options", "where", "call"),
    [
        (char_rnn, {"corpus": "vector", "iterations": 15}, "train.char_rnn.train_start", 3),
        (memory, {"sentence": "to be", "starts": 2, "epochs": 20}, "train.memory.train", 5),
    ],
)
def test_finished_trainings_are_kept_and_only_the_others_are_trained(
    module, options, where, call, tmp_path, monkeypatch, capsys
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    module.main(module.Options(out=whole, **options))
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, where, call)
        module.main(module.Options(out=broken, **options))
    script = module.__name__.rpartition(".")[2]
    again = saved_options(script, module.Options, broken)
    capsys.readouterr()
    module.main(again)
    assert f"{broken}: {call - 1} trainings are finished" in capsys.readouterr().out
    for name in ("results.json", "log.jsonl"):
        assert (broken / name).read_text() == (whole / name).read_text()
    with pytest.raises(ValueError, match=r"--seed 1, got 2; a run goes on with its own options$"):
        module.main(replace(again, seed=2))


def test_a_run_of_a_text_goes_on_with_that_text_alone(tmp_path, monkeypatch, capsys):
    words, out = tmp_path / "words.txt", tmp_path / "run"
    words.write_text("apple\nplum\n", encoding="utf-8")
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.char_rnn.train_start", 3)
        char_rnn.main(char_rnn.Options(out=out, file=words, iterations=15))
    again = saved_options("char_rnn", char_rnn.Options, out)
    words.write_text("apple\nplums\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"(?s)a run of another text: .* with --file"):
        char_rnn.main(again)
    moved = tmp_path / "moved.txt"
    moved.write_text("apple\nplum\n", encoding="utf-8")
    char_rnn.main(replace(again, file=moved))
    assert f"{out}: 2 trainings are finished" in capsys.readouterr().out
    assert (out / "results.json").exists()


def test_a_checkpoint_from_before_trainings_said_how_far_they_are_is_taken_up(
    tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    with monkeypatch.context() as context, pytest.raises(Broken):
        break_at(context, "train.char_rnn.train_start", 2)
        char_rnn.main(char_rnn.Options(out=out, corpus="vector", iterations=15))
    checkpoint = read_checkpoint(out / "checkpoint.safetensors")
    assert checkpoint.pop("begun") == {}
    write_checkpoint(out / "checkpoint.safetensors", checkpoint)
    capsys.readouterr()
    char_rnn.main(saved_options("char_rnn", char_rnn.Options, out))
    assert f"{out}: 1 trainings are finished\n" in capsys.readouterr().out
