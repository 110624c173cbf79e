"""Files that are whole or not there."""

import errno
import os
import stat

import pytest

from common.files.atomic import read_whole, write_atomically


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    write_atomically(tmp_path / "weights", b"new")
    write_atomically(str(tmp_path / "other"), b"")
    assert (tmp_path / "weights").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["other", "weights"]


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"old and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_data_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "weights", b"new")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_whatever_fails_the_old_file_stays_whole_and_alone(tmp_path, monkeypatch, step, failure):
    def fails(*args):
        raise failure

    path = tmp_path / "weights"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fails)
    with pytest.raises(type(failure)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]


def test_a_folder_that_is_missing_or_a_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "weights", b"new")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file" / "weights", b"new")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_without_permission_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            write_atomically(tmp_path / "weights", b"new")
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask to speak of")
def test_the_file_may_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "weights", b"new")
        assert os.umask(0o027) == 0o027  # the umask itself is back
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == 0o640


def test_the_whole_of_a_file_is_read_or_its_beginning(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"whole")
    assert (read_whole(path), read_whole(path, 2)) == (b"whole", b"wh")


def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="not a file that could be read"):
            read_whole(path)
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "missing")
