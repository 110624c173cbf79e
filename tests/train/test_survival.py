"""Training processes that are killed, stopped, out of space, or two at once.

TIMELAYERS_KILLS=50 pytest tests/train/test_survival.py    # more kills than the ordinary five
"""

import json
import os
import random
import signal
import time

import pytest

from common.files.tensors import read_checkpoint
from tests.train.processes import TEXT, Process, expect_same_run, finish, log_of, new_run, run

KILLS = int(os.environ.get("TIMELAYERS_KILLS", "5"))
WINDOWS = 62  # updates in an epoch of TEXT
AT_EVERY_UPDATE, AT_EPOCHS = 1e-9, 0  # minutes between checkpoints
CHECKPOINT = "checkpoint.safetensors"

# Where a process is killed in its run, and how many updates or log lines it gets there at most: all
# within an epoch, so that a run of more epochs than kills cannot end before the last of them.
MOMENTS = [
    (f"half of {CHECKPOINT}", 12),
    ("anywhere", 12),
    (CHECKPOINT, 12),  # written, but not under its name
    ("half of config.json", 1),  # at the start
    ("half a line of log.jsonl", 2),
    (f"half of {CHECKPOINT}", 12),
    ("validation", 1),
    (CHECKPOINT, 12),
    ("update", WINDOWS // 2),  # with nothing kept since the epoch began
    ("anywhere", 12),
]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "cats.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def half_written(folder):
    return list(folder.glob(f".{CHECKPOINT}.*"))


def kill(arguments, place, number, rng):
    """Start a process and kill it; the exit code."""
    every = AT_EPOCHS if place == "update" else AT_EVERY_UPDATE
    places = [(place, number)]
    if place == "anywhere":  # wherever the clock finds it, but no further than 20 updates on
        places = [("update", number, False), ("update", number + 20)]
    process = Process("better_rnnlm", *arguments, "--checkpoint-every", every, places=places)
    process.wait_for_place()
    if place == "anywhere":
        time.sleep(rng.uniform(0, 0.03))
    process.kill()
    return finish(process)[0]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(
    text_file, tmp_path, capsys
):
    rng = random.Random(1)
    options = {"epochs": KILLS + 1, "lr": 2, "lr-decay": 1.1}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run("better_rnnlm", *new_run(text_file, whole, **options))[0] == 0
    assert {record.get("iterations", WINDOWS) for record in log_of(whole)} == {WINDOWS}

    arguments, writing = new_run(text_file, broken, **options), 0
    for k in range(KILLS):
        place, most = MOMENTS[k % len(MOMENTS)]
        assert kill(arguments, place, rng.randint(1, most), rng) == -signal.SIGKILL
        if place.endswith(CHECKPOINT):
            assert half_written(broken)
        writing += bool(half_written(broken))
        if (broken / CHECKPOINT).exists():
            read_checkpoint(broken / CHECKPOINT)
        if (broken / "config.json").exists():
            arguments = ["--resume", broken]
    assert not (broken / "results.json").exists()
    code, out, err = run("better_rnnlm", *arguments, "--checkpoint-every", 5)
    assert code == 0, err
    with capsys.disabled():
        print(f"\n{KILLS} kills, {writing} amid a checkpoint")
    assert "goes on after iteration" in out
    expect_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_iteration_and_says_how_to_go_on(
    signum, code, text_file, tmp_path
):
    stopped = tmp_path / "stopped"
    arguments, place = new_run(text_file, stopped, epochs=3, lr=1), ("update", WINDOWS + 9)
    process = Process("rnnlm", *arguments, places=[place])
    process.wait_for_place()
    process.ask_to_stop(signum)
    process.go_on()
    got, out, err = finish(process)
    assert got == code
    assert "Traceback" not in err
    *_, stop, evaluation, last = out.splitlines()
    assert stop == f"| stopped after iteration {WINDOWS + 9}, checkpoint written"
    assert "validation perplexity" in evaluation
    assert last == f"to go on: python -m train.rnnlm --resume {stopped}"
    assert not (stopped / "run.lock").exists()

    got, out, err = run("rnnlm", "--resume", stopped)
    assert got == 0, err
    validated = [record["epoch"] for record in log_of(stopped) if "valid" in record]
    assert validated == [1, 2, 3]


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_leaves_what_was_written(text_file, tmp_path):
    folder = tmp_path / "run"
    places = [("update", 5), ("validation", 1)]
    process = Process("better_rnnlm", *new_run(text_file, folder), places=places)
    process.wait_for_place()
    process.ask_to_stop(signal.SIGINT)
    process.go_on()
    process.wait_for_place()  # the validation of a run that stops
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130 and "validation perplexity" not in out
    *_, stop, last = out.splitlines()
    assert stop == "| stopped after iteration 5, checkpoint written"
    assert last.startswith("to go on: ") and "Traceback" not in err
    kept = {"config.json", "vocabulary.json", "log.jsonl", CHECKPOINT}
    assert {file.name for file in folder.iterdir()} == kept
    read_checkpoint(folder / CHECKPOINT)


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
    folder, options = tmp_path / "run", {"checkpoint-every": AT_EVERY_UPDATE}
    process = Process("rnnlm", *new_run(text_file, folder, **options), places=[("update", 5)])
    process.wait_for_place()
    for arguments in (["--resume", folder], new_run(text_file, folder)):
        code, _, err = run("rnnlm", *arguments)
        assert code == 1
        assert err.startswith(f"error: {folder} is in use by process {process.pid} on ")
    process.kill()
    finish(process)
    assert json.loads((folder / "run.lock").read_text())["pid"] == process.pid
    process = Process("rnnlm", "--resume", folder, places=[("update", 1)])
    process.wait_for_place()
    assert json.loads((folder / "run.lock").read_text())["pid"] == process.pid
    process.ask_to_stop(signal.SIGTERM)
    process.go_on()
    assert finish(process)[0] == 143
    assert not (folder / "run.lock").exists()
