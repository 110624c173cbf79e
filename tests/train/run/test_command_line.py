"""What a person sees: help that teaches, one line for an error, an exit code for a script."""

import os
import subprocess
import sys

import pytest

from tests.builders import PATIENCE

SCRIPTS = [
    *("rnnlm", "simple_rnnlm", "better_rnnlm", "evaluate", "generate", "check_gradients"),
    *("char_rnn", "gradient_flow", "last_word", "memory", "shapes", "step_by_step"),
    *("dynamic_evaluation", "neural_cache"),
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


def test_an_unknown_option_is_an_error_of_usage():
    done = command("train.rnnlm", "--learning-rat", "3")
    assert done.returncode == 2
    assert "--learning-rat" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.rnnlm", "--corpus", "nowhere.txt"], "there is no such file"),
        (["train.rnnlm", "--corpus", "ptb", "--data-dir", "/nowhere"], "ptb.train.txt"),
        (["train.evaluate", "/nowhere"], "is not the folder of a run"),
        (["train.check_gradients", "--only", "transformer"], "expected part of one of MatMul"),
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


def test_check_gradients_counts_what_is_right():
    done = command("train.check_gradients", "--only", "embedding", "--verbose")
    assert done.returncode == 0
    assert "by differences" in done.stdout
    assert done.stdout.endswith("3 of 3 right\n")
