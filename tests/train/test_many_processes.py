"""Training on several processes that ``mpiexec`` starts: what it leaves, says, and survives.

TIMELAYERS_KILLS=50 pytest tests/train/test_many_processes.py    # more kills than the ordinary two
"""

import json
import math
import os
import platform
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.files.tensors import read_checkpoint
from tests.builders import PATIENCE
from tests.mpi import Together, needs_mpi, run
from tests.train.processes import TEXT, log_of, new_run

pytestmark = [needs_mpi, pytest.mark.slow]

KILLS = int(os.environ.get("TIMELAYERS_KILLS", "2"))
WINDOWS = 62  # updates in an epoch of TEXT
MOST_UPDATES = max(1, min(WINDOWS // 2, 2 * WINDOWS // KILLS))  # before a kill
AT_EVERY_UPDATE, AT_EPOCHS = 1e-9, 0  # minutes between checkpoints
CHECKPOINT = "checkpoint.safetensors"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one process: its folder and what it said."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "cats.txt").write_text(TEXT, encoding="utf-8")
    code, out, err = run(1, "better_rnnlm", *arguments_of((folder / "run", ""), folder / "run"))
    assert (code, err) == (0, "")
    return folder / "run", out


def arguments_of(alone, out, **options):
    """Of the same run in another folder."""
    text_file = alone[0].with_name("cats.txt")
    return new_run(text_file, out, **{"lr": 1, "epochs": 3, **options})


def expect_close_run(a, b):
    """Fails unless two folders hold the same files, with the same figures up to rounding."""
    assert sorted(file.name for file in a.iterdir()) == sorted(file.name for file in b.iterdir())
    first, second = (load_file(folder / "weights.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=1e-4)
    for one, other in zip(log_of(a), log_of(b), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    results = [json.loads((folder / "results.json").read_text()) for folder in (a, b)]
    assert results[0].keys() == results[1].keys()
    for name in results[0].keys() - {"seconds"}:
        one, other = (result[name] for result in results)
        assert one == (other if isinstance(other, str) else pytest.approx(other, rel=1e-4))
    vocabularies = [(folder / "vocabulary.json").read_bytes() for folder in (a, b)]
    assert vocabularies[0] == vocabularies[1]


def shapes(out):
    """The lines before the sample, without numbers, and without those that a clock decides on."""
    lines = out.partition("sample:")[0].splitlines()
    return [re.sub(r"\d+([.,:]\d+)*", "#", line) for line in lines if "| iteration" not in line]


# ---- a run ----


def test_a_run_on_two_processes_leaves_what_a_run_on_one_leaves(alone, tmp_path):
    folder, said = alone
    code, out, err = run(2, "better_rnnlm", *arguments_of(alone, tmp_path / "run"))
    assert (code, err) == (0, "")
    expect_close_run(tmp_path / "run", folder)
    first, *others = shapes(out.replace(str(tmp_path), str(folder.parent)))
    assert first == "# streams on # processes, one machine"
    assert others == shapes(said)  # each line once


def test_every_chance_and_an_average_are_those_of_one_process(alone, tmp_path):
    options = {"lr": 3, "epochs": 2, "average": "ema", "average-decay": 0.9, "batch-size": 5}
    chances = ["--random-offset", "--random-sizes", "--unigram-bias"]
    for number in (1, 3):
        arguments = arguments_of(alone, tmp_path / str(number), **options)
        code, _, err = run(number, "awd_rnnlm", *arguments, *chances)
        assert (code, err) == (0, "")
    expect_close_run(tmp_path / "3", tmp_path / "1")


def test_verbose_says_what_each_process_does(alone, tmp_path):
    options = arguments_of(alone, tmp_path / "run", epochs=1)
    code, out, err = run(3, "better_rnnlm", *options, "--verbose")
    assert (code, err) == (0, "")
    host = platform.node()
    assert out.splitlines()[:4] == [
        "4 streams on 3 processes, one machine",
        f"process 1 on {host}: streams 0 to 1, threads: 1",
        f"process 2 on {host}: streams 2 to 2, threads: 1",
        f"process 3 on {host}: streams 3 to 3, threads: 1",
    ]


def test_a_run_goes_on_with_any_number_of_processes(alone, tmp_path):
    folder = tmp_path / "run"
    arguments = arguments_of(alone, folder)
    for number, updates in ((2, 9), (3, WINDOWS)):  # in the first epoch, in the second
        together = Together(number, "better_rnnlm", *arguments, places={0: [("update", updates)]})
        together.wait_for_place()
        stop(together, signal.SIGTERM)
        code, out, err = together.finish()
        assert code == 143, err
        arguments = ["--resume", folder]
    code, out, err = run(1, "better_rnnlm", *arguments)
    assert (code, err) == (0, "")
    assert f"goes on after iteration {9 + WINDOWS}, 1 epochs done" in out
    expect_close_run(folder, alone[0])


# ---- what is refused ----


@pytest.mark.parametrize("script", ["evaluate", "generate", "neural_cache", "dynamic_evaluation"])
def test_what_works_in_one_process_refuses_more_in_one_line(script, alone):
    code, out, err = run(2, script, alone[0])
    assert (code, out) == (1, "")
    assert err == (
        f"error: python -m train.{script} works in one process, and 2 were started; "
        "leave out mpiexec\n"
    )


@pytest.mark.parametrize("wrong", [["--nonsense", 3], ["--epochs", "many"]])
def test_options_that_are_not_known_are_explained_once(wrong):
    code, out, err = run(3, "rnnlm", *wrong)
    assert (code, out) == (2, "")
    assert (code, out, err) == run(1, "rnnlm", *wrong)


def test_help_is_printed_once():
    assert run(2, "rnnlm", "--help") == run(1, "rnnlm", "--help")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs: expected 1 or more, got 0"),
        (
            {"batch-size": 2},
            "--batch-size 2: expected a stream or more for each of 3 processes",
        ),
        ({"corpus": "/no/such"}, ""),
    ],
)
def test_options_that_cannot_work_are_one_line_and_leave_no_folder(
    options, message, alone, tmp_path
):
    arguments = arguments_of(alone, tmp_path / "run", **options)
    code, out, err = run(3, "rnnlm", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {message}") and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("patience", ["soon", "0"])
def test_a_patience_that_is_no_time_is_one_line(patience):
    code, out, err = run(2, "rnnlm", "--help", environment={"TIMELAYERS_PATIENCE": patience})
    assert (code, out) == (1, "")
    assert err == f"error: TIMELAYERS_PATIENCE: expected seconds above 0, got '{patience}'\n"


# ---- the ends of a run ----


def stop(together, signum, rank=None):
    """Send a signal to the launcher, or to one process; let that one go on, or the first."""
    if rank is None:
        together.send_signal(signum)
    else:
        together.send(rank, signum)
    if not rank:  # the others are not heard
        together.wait_until_it_says("stopping here; once more stops at once")
    together.go_on(rank or 0)


@pytest.mark.parametrize(
    ("signum", "rank", "code"),
    [
        (signal.SIGINT, None, 130),  # Ctrl-C, to the launcher
        (signal.SIGTERM, None, 143),
        (signal.SIGTERM, 0, 143),
        (signal.SIGTERM, 1, 143),
    ],
)
def test_a_signal_to_one_or_all_stops_all_after_the_same_iteration(
    signum, rank, code, alone, tmp_path
):
    folder = tmp_path / "run"
    places = {rank or 0: [("update", 9)]}
    together = Together(2, "better_rnnlm", *arguments_of(alone, folder), places=places)
    together.wait_for_place(rank or 0)
    stop(together, signum, rank)
    got, out, err = together.finish()
    assert got == code, err
    assert "Traceback" not in err
    lines = [line for line in out.splitlines() if not line.startswith("[mpiexec@")]
    stopped, evaluation, last = lines[-3:]
    iteration = read_checkpoint(folder / CHECKPOINT)["trainer"]["iteration"]
    assert iteration == 9 or (rank and iteration > 9)
    assert stopped == f"| stopped after iteration {iteration}, checkpoint written"
    assert "validation perplexity" in evaluation
    assert last == f"to go on: python -m train.better_rnnlm --resume {folder}"
    assert Counter(lines)[last] == 1
    assert not (folder / "run.lock").exists()

    assert run(2, "better_rnnlm", "--resume", folder)[0] == 0
    expect_close_run(folder, alone[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all_and_the_checkpoint_goes_on(rank, alone, tmp_path):
    folder = tmp_path / "run"
    arguments = arguments_of(alone, folder, **{"checkpoint-every": AT_EPOCHS})
    places = {rank: [("update", WINDOWS + 9)]}
    together = Together(2, "better_rnnlm", *arguments, places=places)
    together.wait_for_place(rank)
    together.send(rank, signal.SIGKILL)
    code, out, err = together.finish()
    assert code == signal.SIGKILL
    assert "Traceback" not in out + err
    wait_until_ended(together.pids)

    code, out, err = run(3, "better_rnnlm", "--resume", folder)
    assert (code, err) == (0, "")
    assert f"goes on after iteration {WINDOWS}, 1 epochs done" in out
    expect_close_run(folder, alone[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stands_still_ends_all_and_is_named(rank, alone, tmp_path):
    folder = tmp_path / "run"
    together = Together(
        *(2, "better_rnnlm"),
        *arguments_of(alone, folder, **{"checkpoint-every": AT_EVERY_UPDATE}),
        places={rank: [("update", 9)]},
        environment={"TIMELAYERS_PATIENCE": "3"},
    )
    together.wait_for_place(rank)
    together.send(rank, signal.SIGSTOP)
    code, out, err = together.finish()
    assert code == 1
    assert re.fullmatch(
        rf"error: process {rank + 1} of 2 on {platform.node()} has not answered for \d+ s; "
        r"all processes end\n",
        err,
    )
    assert "Traceback" not in out
    wait_until_ended(together.pids)
    assert read_checkpoint(folder / CHECKPOINT)["trainer"]["iteration"] == 8
    assert run(2, "better_rnnlm", "--resume", folder)[0] == 0


def wait_until_ended(pids):
    """Return once none of the processes is left; the launcher may end before the last of them."""
    deadline = time.monotonic() + PATIENCE
    while any(map(is_left, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_left(pid):
    """Whether it runs or stands still; one that is dead may still be listed."""
    try:
        about = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return about.rpartition(")")[2].split()[0] not in "ZX"


def test_a_full_disk_ends_all_with_one_message_and_the_checkpoint_before_it_is_whole(
    alone, tmp_path
):
    folder = tmp_path / "run"
    arguments = arguments_of(alone, folder, epochs=1, **{"log-interval": 100})
    assert run(2, "better_rnnlm", *arguments)[0] == 0
    before = (folder / CHECKPOINT).read_bytes()
    full = {"largest_file": len(before) // 2}
    code, _, err = run(2, "better_rnnlm", "--resume", folder, "--epochs", 3, **full)
    assert code == 1
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert "cannot write the checkpoint (File too large); one written before is still whole" in err
    assert (folder / CHECKPOINT).read_bytes() == before
    assert not list(folder.glob(".*"))
    assert run(2, "better_rnnlm", "--resume", folder, "--epochs", 3)[0] == 0
    assert [record["epoch"] for record in log_of(folder) if "valid" in record] == [1, 2, 3]


def test_a_run_that_diverges_ends_all_with_one_message(alone, tmp_path):
    options = {"lr": 1e38, "max-grad": 1e30}
    code, _, err = run(2, "rnnlm", *arguments_of(alone, tmp_path / "run", **options))
    assert code == 1
    assert len(err.splitlines()) == 1
    assert re.match(r"error: DataParallelTrainer: the \w.* is (nan|inf) at iteration \d+ of", err)


# ---- a storm ----


def kill_one(arguments, rng):
    """Start a run on a random number of processes, kill one of them somewhere; how many and where.

    After so few updates that the run cannot end before the last of the kills.
    """
    number = rng.randint(1, 3)
    rank, every = rng.randrange(number), rng.choice([AT_EVERY_UPDATE, AT_EPOCHS])
    place = "update", rng.randint(1, MOST_UPDATES)
    if rank == 0 and every and rng.random() < 0.5:
        place = f"half of {CHECKPOINT}", rng.randint(1, min(12, MOST_UPDATES))
    together = Together(
        *(number, "better_rnnlm", *arguments, "--checkpoint-every", every), places={rank: [place]}
    )
    together.wait_for_place(rank)
    together.send(rank, signal.SIGKILL)
    code, _, err = together.finish()
    assert code == signal.SIGKILL, err
    return f"process {rank + 1} of {number} at {' '.join(map(str, place))}"


def test_a_run_whose_processes_are_killed_again_and_again_ends_as_one_that_never_was(
    alone, tmp_path, capsys
):
    rng, kills = random.Random(23), []
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # Few epochs, however many kills: in float32 the rounding of sums grows from update to update.
    options = {"epochs": 1 + math.ceil(KILLS * MOST_UPDATES / WINDOWS), "seed": 4}
    assert run(1, "better_rnnlm", *arguments_of(alone, whole, **options))[0] == 0

    arguments = arguments_of(alone, broken, **options)
    for _ in range(KILLS):
        kills.append(kill_one(arguments, rng))
        arguments = ["--resume", broken]
    assert not (broken / "results.json").exists()
    code, _, err = run(2, "better_rnnlm", *arguments)
    assert code == 0, err
    with capsys.disabled():
        print("\nkilled:", "; ".join(kills))
    expect_close_run(broken, whole)
