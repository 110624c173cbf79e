"""Training processes that are killed, stopped, out of space, or two at once.

TIMELAYERS_KILLS=50 pytest tests/train/test_survival.py    # more kills than the ordinary five
"""

import json
import os
import random
import signal
import time

import pytest

from common.files.checkpoint import read_checkpoint
from tests.train.processes import (
    TEXT,
    expect_same_run,
    finish,
    log_of,
    new_run,
    run,
    start,
    wait_for,
)

KILLS = int(os.environ.get("TIMELAYERS_KILLS", "5"))
OFTEN = 0.0003  # minutes between checkpoints: 18 ms
FOREVER = {"epochs": 100_000, "checkpoint-every": OFTEN}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def half_written(folder):
    return list(folder.glob(".checkpoint.safetensors.*"))


def kill(process, folder, moment, rng):
    """Kill it at a random moment of its training, of a checkpoint's writing, or of its start."""
    if moment == "start":
        time.sleep(rng.uniform(0, 0.6))
    else:
        before = (folder / "checkpoint.safetensors").exists() and os.stat(
            folder / "checkpoint.safetensors"
        ).st_mtime_ns

        def has_moved():
            file = folder / "checkpoint.safetensors"
            return file.exists() and os.stat(file).st_mtime_ns != before

        wait_for(has_moved, process)
        time.sleep(rng.uniform(0, 0.1))
        if moment == "writing":
            wait_for(lambda: half_written(folder), process)
    process.kill()
    finish(process)
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(
    text_file, tmp_path, capsys
):
    rng = random.Random(1)
    options = {"epochs": 4 * KILLS, "lr": 2, "lr-decay": 1.1}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run("better_rnnlm", *new_run(text_file, whole, **options))[0] == 0
    options["checkpoint-every"] = OFTEN

    arguments, killed, writing = new_run(text_file, broken, **options), 0, 0
    began = time.monotonic()
    for number in range(KILLS):
        process = start("better_rnnlm", *arguments)
        moment = ("training", "writing", "start", "training", "writing")[number % 5]
        killed += kill(process, broken, moment, rng)
        writing += bool(half_written(broken))
        if (broken / "checkpoint.safetensors").exists():
            read_checkpoint(broken / "checkpoint.safetensors")
        if (broken / "config.json").exists():
            arguments = ["--resume", broken]
    before_the_end = not (broken / "results.json").exists()
    code, out, err = run("better_rnnlm", *arguments, "--checkpoint-every", 5)
    assert code == 0, err
    with capsys.disabled():
        seconds = time.monotonic() - began
        print(f"\n{killed} of {KILLS} kills, {writing} amid a checkpoint, {seconds:.0f} s")
    assert killed == KILLS and before_the_end
    assert "goes on after iteration" in out
    expect_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_iteration_and_says_how_to_go_on(
    signum, code, text_file, tmp_path
):
    stopped = tmp_path / "stopped"
    process = start("rnnlm", *new_run(text_file, stopped, lr=1, **FOREVER))
    assert wait_for(lambda: (stopped / "weights.safetensors").exists(), process)
    process.send_signal(signum)
    got, out, err = finish(process)
    assert got == code
    assert "once more stops at once" in err and "Traceback" not in err
    *_, evaluation, last = out.splitlines()
    assert last == f"to go on: python -m train.rnnlm --resume {stopped}"
    assert "validation perplexity" in evaluation
    assert not (stopped / "run.lock").exists()

    epochs = read_checkpoint(stopped / "checkpoint.safetensors")["trainer"]["epoch"] + 1
    got, out, err = run("rnnlm", "--resume", stopped, "--epochs", epochs)
    assert got == 0, err
    validated = [record["epoch"] for record in log_of(stopped) if "valid" in record]
    assert validated == list(range(1, epochs + 1))


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_leaves_what_was_written(text_file, tmp_path):
    text_file.write_text(TEXT * 100, encoding="utf-8")  # validation takes its time
    folder = tmp_path / "run"
    arguments = new_run(text_file, folder, **{**FOREVER, "batch-size": 100, "time-size": 70})
    process = start("better_rnnlm", *arguments)
    assert wait_for((folder / "checkpoint.safetensors").exists, process)
    process.send_signal(signal.SIGINT)
    while not process.stdout.readline().startswith("| stopped after iteration"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)  # while it validates
    code, out, err = finish(process)
    assert code == 130 and "validation perplexity" not in out
    assert out.splitlines()[-1].startswith("to go on: ") and "Traceback" not in err
    names = {file.name for file in folder.iterdir()} - {"weights.safetensors"}
    assert names == {"config.json", "log.jsonl", "checkpoint.safetensors"}
    read_checkpoint(folder / "checkpoint.safetensors")


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_is_whole(text_file, tmp_path):
    folder = tmp_path / "run"
    options = {"epochs": 2, "log-interval": 100, "hidden-size": 20}
    assert run("rnnlm", *new_run(text_file, folder, **options))[0] == 0
    before = (folder / "checkpoint.safetensors").read_bytes()
    code, _, err = run("rnnlm", "--resume", folder, "--epochs", 3, largest_file=len(before) // 2)
    assert code == 1
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert "cannot write the checkpoint (File too large); one written before is still whole" in err
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    assert not list(folder.glob(".*"))
    assert run("rnnlm", "--resume", folder)[0] == 0  # three epochs were asked for
    assert [record["epoch"] for record in log_of(folder) if "valid" in record] == [1, 2, 3]


@pytest.mark.slow
def test_a_folder_in_use_names_the_process_and_is_free_once_that_is_dead(text_file, tmp_path):
    folder = tmp_path / "run"
    process = start("rnnlm", *new_run(text_file, folder, **FOREVER))
    assert wait_for((folder / "checkpoint.safetensors").exists, process)
    for arguments in (["--resume", folder], new_run(text_file, folder)):
        code, _, err = run("rnnlm", *arguments)
        assert code == 1
        assert err.startswith(f"error: {folder} is in use by process {process.pid} on ")
    process.kill()
    finish(process)
    assert json.loads((folder / "run.lock").read_text())["pid"] == process.pid
    process = start("rnnlm", "--resume", folder)
    assert wait_for(lambda: str(process.pid) in (folder / "run.lock").read_text(), process)
    process.terminate()
    assert finish(process)[0] == 143
    assert not (folder / "run.lock").exists()
