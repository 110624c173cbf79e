"""What a person sees: help that teaches, one line for an error, an exit code for a script."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.builders import PATIENCE
from train import awd_rnnlm, better_rnnlm, rnnlm
from train.run.command import Output, run_command
from train.run.folder import RunFolder

SCRIPTS = [
    *("rnnlm", "simple_rnnlm", "better_rnnlm", "evaluate", "generate", "check_gradients"),
    *("char_rnn", "gradient_flow", "last_word", "memory", "seq2seq", "shapes", "step_by_step"),
    *("awd_rnnlm", "dynamic_evaluation", "neural_cache", "compare", "effective_context"),
    *("export_log", "inspect", "surprisal"),
]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
        timeout=PATIENCE,
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option_with_a_sentence(script):
    done = command(f"train.{script}", "--help")
    assert done.returncode == 0
    assert f"usage: python -m train.{script}" in done.stdout
    assert "╭─ options" in done.stdout


def test_all_commands_are_listed_with_what_they_do():
    done = command("train")
    assert (done.returncode, done.stderr) == (0, "")
    *lines, _, last = done.stdout.splitlines()
    words = [line.split(maxsplit=3) for line in lines]
    listed = {name.removeprefix("train.") for _, _, name, _ in words}
    assert listed == {*SCRIPTS, "import_book", "torch_weights", "benchmark"}
    assert all(about.endswith((".", "?")) for *_, about in words)
    assert last.endswith("--help")


def test_an_unknown_option_is_an_error_of_usage():
    done = command("train.rnnlm", "--learning-rat", "3")
    assert done.returncode == 2
    assert "--learning-rat" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.rnnlm", "--corpus", "nowhere.txt"], "there is no such file"),
        (
            ["train.rnnlm", "--corpus", "ptb", "--data-dir", "/nowhere"],
            "--data-dir: expected a folder",
        ),
        (["train.evaluate", "/nowhere"], "is not the folder of a run"),
        (["train.check_gradients", "--only", "transformer"], "expected part of the name of one of"),
    ],
)
def test_what_a_user_can_cause_is_one_line_on_stderr(arguments, message):
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"plain\ncaf\xe9\n")
    done = command("train.rnnlm", "--corpus", str(path))
    assert done.returncode == 1
    assert "latin.txt" in done.stderr and "line 2" in done.stderr


def test_a_folder_that_cannot_be_written_stops_the_run_before_it_starts(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = command("train.rnnlm", "--out", str(tmp_path / "file" / "run"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "epoch" not in done.stdout


def test_a_cell_that_nobody_knows_is_one_line_with_the_names_before_there_is_a_folder(tmp_path):
    done = command("train.rnnlm", "--cell", "lstn", "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cell 'lstn': expected rnn, lstm, gru, ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "code"),
    [
        ("rnnlm", ["--cell", "unfinished", "--epochs", "1"], 1),
        ("check_gradients", ["--cell", "unfinished"], 1),
        ("check_gradients", ["--cell", "lstm", "--only", "cell lstm"], 0),
    ],
)
def test_a_bad_file_among_the_cells_is_one_line_where_it_is_asked_for(
    script, arguments, code, tmp_path
):
    (tmp_path / "unfinished.py").write_text("class Cell(")
    start = (
        "import runpy, sys; from common import cells; cells.__path__.append(sys.argv.pop(1));"
        f"runpy.run_module('train.{script}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stderr
    if code:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: common/cells/unfinished.py: it cannot be imported (Syntax")


def test_check_gradients_counts_what_is_right():
    done = command("train.check_gradients", "--only", "embedding", "--verbose")
    assert done.returncode == 0
    assert "by differences" in done.stdout
    assert "\n5 of 5 right, worst relative error " in done.stdout


def parsed(monkeypatch, script, options, *arguments):
    """What a command's main is called with."""
    started = SimpleNamespace(__spec__=SimpleNamespace(name=f"train.{script}"))  # python -m
    monkeypatch.setitem(sys.modules, "__main__", started)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    for name in ("stdout", "stderr"):  # a command puts its own in their place
        monkeypatch.setattr(sys, name, getattr(sys, name))
    got = []
    run_command(got.append, options)
    return got[0]


def test_options_that_are_not_given_come_from_the_run(tmp_path, monkeypatch):
    out = tmp_path / "run"
    RunFolder.create("rnnlm", "cats", rnnlm.Options(out=out, epochs=1, lr=2.0, hidden_size=6))
    for arguments, expected in [
        (["--epochs", "4"], {"epochs": 4, "lr": 2.0}),  # 4 is the default, too
        (["--lr", "20"], {"epochs": 1, "lr": 20.0}),
    ]:
        got = parsed(monkeypatch, "rnnlm", rnnlm.Options, "--resume", str(out), *arguments)
        assert {name: getattr(got, name) for name in expected} == expected
        assert (got.hidden_size, got.resume) == (6, out)


def test_presets_are_the_defaults_of_all_other_options(monkeypatch):
    preset, changed, full = (
        parsed(monkeypatch, "awd_rnnlm", awd_rnnlm.Options, *arguments)
        for arguments in (["--preset", "cpu10"], ["--preset", "cpu10", "--lr", "3"], [])
    )
    assert preset.num_layers == awd_rnnlm.Options.PRESETS["cpu10"]["num_layers"]
    assert changed == replace(preset, lr=3.0)
    assert full == awd_rnnlm.Options()


def test_the_parts_of_the_model_are_chosen_on_the_command_line(monkeypatch):
    arguments = ["--cell", "gru", "--num-layers", "3", "--dropout", "0.2", "--no-tied"]
    got = parsed(monkeypatch, "better_rnnlm", better_rnnlm.Options, *arguments)
    assert got == better_rnnlm.Options(cell="gru", num_layers=3, dropout=0.2, tied=False)


def test_a_line_is_there_for_its_reader_when_it_ends(tmp_path):
    with open(tmp_path / "lines", "w", encoding="utf-8") as stream:
        output = Output(stream)
        output.write("one of 93 right\nthe ")
        assert (tmp_path / "lines").read_text(encoding="utf-8").startswith("one of 93 right\n")


def test_output_that_nobody_reads_any_more_goes_nowhere_and_leaves_no_descriptor_open():
    reader, writer = os.pipe()
    os.close(reader)

    def lowest_free():
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        return free

    with open(writer, "w", encoding="utf-8") as stream:
        before = lowest_free()
        output = Output(stream)
        for _ in range(2):
            print("a line", file=output, flush=True)
            assert lowest_free() == before
            assert output.goes_nowhere and output.failure is None
