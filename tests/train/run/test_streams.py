"""Standard streams that are closed, full or slow, and Ctrl-C before and around a command."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tests.builders import PATIENCE
from tests.train.processes import ROOT, TEXT, new_run
from train import rnnlm
from train.run import command as module
from train.run import command_line
from train.run.command import Output, run_command

NEEDS_FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def run(text_file, tmp_path):
    out = tmp_path / "run"
    sizes = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 4, "time_size": 7, "epochs": 1}
    rnnlm.main(rnnlm.Options(corpus=str(text_file), out=out, **sizes))
    return out


def start(*arguments, **more):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, **more)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_a_word_for_standard_error_never_stands_in_a_file_of_the_run(text_file, tmp_path):
    """With 1 and 2 closed, the next files to be opened would be 1 and 2."""
    code = (
        "import os; os.close(1); os.close(2)\n"
        "import sys; sys.stdout = sys.stderr = None\n"
        "from common.optimizer import SGD\n"
        "update = SGD.update\n"
        "def loud(*a): os.write(2, b'a word of a library'); update(*a)\n"
        "SGD.update = loud\n"
        "from train import rnnlm\n"
        "from train.run.command import run_command\n"
        "run_command(rnnlm.main, rnnlm.Options)\n"
    )
    out = tmp_path / "run"
    arguments = new_run(text_file, out, epochs=1, **{"log-interval": 1})
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, timeout=PATIENCE
    )
    assert done.returncode == 0
    assert (out / "results.json").exists()
    assert not [file.name for file in out.iterdir() if b"a word" in file.read_bytes()]


@NEEDS_FULL
def test_output_that_a_full_disk_refuses_is_an_error(run):
    with open("/dev/full", "wb") as full:
        process = start("train.generate", run, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err == b"error: standard output: No space left on device\n"


def test_output_without_a_reader_is_none(run):
    process = start("train.generate", run, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr as err:
        assert err.read() == b""
    assert process.wait(PATIENCE) == 0


def test_a_pipe_that_does_not_wait_is_made_to_wait_for_a_slow_reader():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb") as far, open(writer, "w", encoding="utf-8") as near:
        text = "a line\n" * 40_000  # more than a pipe holds
        got = []
        thread = threading.Thread(target=lambda: got.append(far.read()))
        output = Output(near)
        thread.start()
        print(text, end="", file=output, flush=True)
        near.close()
        thread.join(PATIENCE)
        assert got == [text.encode()] and output.failure is None


@pytest.fixture
def started(monkeypatch):
    """As under python -m train.rnnlm, where Ctrl-C is the system's until the command begins."""
    main = SimpleNamespace(__spec__=SimpleNamespace(name="train.rnnlm"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["rnnlm"])
    for name in ("stdout", "stderr"):  # a command puts its own in their place
        monkeypatch.setattr(sys, name, getattr(sys, name))
    left = []
    monkeypatch.setattr(module, "_leave", lambda code: (left.append(code), sys.exit(code)))
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield left
    signal.signal(signal.SIGINT, before)


def interrupt(*arguments, **options):
    signal.raise_signal(signal.SIGINT)


def broken_import(options):
    try:
        interrupt()
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None


def test_ctrl_c_while_the_options_are_read_ends_without_a_word(started, monkeypatch, capsys):
    monkeypatch.setattr(command_line.tyro, "cli", interrupt)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda options: None, rnnlm.Options)
    assert ended.value.code == 130 and started == [130]
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


@pytest.mark.parametrize("work", [interrupt, broken_import])
def test_what_ctrl_c_makes_of_an_import_is_no_other_error(work, started):
    with pytest.raises(SystemExit) as ended:
        run_command(work, rnnlm.Options)
    assert ended.value.code == 130


def test_an_error_that_nobody_has_made_is_not_hidden(started):
    with pytest.raises(ImportError, match="by itself"):
        run_command(lambda options: exec("raise ImportError('by itself')"), rnnlm.Options)


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv = ['-m']\n"
        "import train; sys.argv = ['generate']\n"
        "from train.run.command import run_command\n"
        "from train.rnnlm import Options\n"
        "run_command(lambda options: signal.raise_signal(signal.SIGINT), Options)\n"
        "print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=ROOT, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"still here\n", b"")


@pytest.mark.parametrize("script", ["rnnlm", "char_rnn", "gradient_flow", "memory", "last_word"])
def test_a_seed_below_0_is_named_by_every_command(script):
    done = subprocess.run(
        [sys.executable, "-m", f"train.{script}", "--seed", "-1"],
        capture_output=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (1, b"error: --seed: expected 0 or more, got -1\n")


def test_an_environment_that_cannot_be_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "train.rnnlm"],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "GPU": "perhaps"},
        timeout=PATIENCE,
    )
    expected = b"error: environment variable GPU: expected 1 or 0, got 'perhaps'\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_no_memory_and_no_size_is_said_as_such(started):
    def fails(options):
        raise MemoryError

    with pytest.raises(SystemExit, match=r"not enough memory for this \(no size is known\)"):
        run_command(fails, rnnlm.Options)
