"""One process per folder."""

import errno
import json
import os
import subprocess
import sys

import pytest

from train.run import folder as lock
from train.run.folder import InUseError, locked

HOLD = """
import pathlib, sys
from train.run.folder import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_is_first_and_since_when(holder, tmp_path):
    path = tmp_path / "run.lock"
    about = json.loads(path.read_text())
    expected = f"is in use by process {holder.pid} on {about['host']} since {about['since']}"
    with pytest.raises(InUseError) as error, locked(path):
        pass
    assert str(error.value) == f"{tmp_path} {expected}"
    assert json.loads(path.read_text()) == about


def test_what_a_killed_process_left_is_taken_over(holder, tmp_path):
    path = tmp_path / "run.lock"
    holder.kill()
    holder.wait()
    assert path.exists()
    with locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_the_lock_is_free_after_the_block_however_it_ends(tmp_path):
    path = tmp_path / "run.lock"
    for _ in range(2):
        with pytest.raises(KeyError), locked(path):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_descriptors_of_one_process_exclude_each_other_too(tmp_path):
    path = tmp_path / "run.lock"
    with locked(path), pytest.raises(InUseError, match=f"by process {os.getpid()} "), locked(path):
        pass


def test_a_holder_that_has_not_written_its_name_yet_is_another_process(tmp_path):
    path = tmp_path / "run.lock"
    with locked(path):
        path.write_text("")
        with pytest.raises(InUseError, match="in use by another process"), locked(path):
            pass


def test_without_locks_of_the_system_the_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    path = tmp_path / "run.lock"
    message = r"if it has ended, delete .*run\.lock"
    with locked(path), pytest.raises(InUseError, match=message), locked(path):
        pass
    with locked(path):
        pass
    assert not path.exists()


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / "run.lock"):
        pass


def test_where_the_file_system_has_no_locks_a_line_says_so(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path / "run.lock"):
        pass
    assert f"note: {tmp_path} cannot be locked (No locks available)" in capsys.readouterr().err
