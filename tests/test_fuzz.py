"""The fuzzer itself: a few hundred cases of it, and that it sees what is planted."""

import random
from types import SimpleNamespace

import pytest

from tests import fuzz

TARGETS = pytest.mark.parametrize("target", fuzz.TARGETS)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """One that stands still unless a test moves it."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(fuzz, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def options(target, tmp_path):
    return fuzz.Options(target, failures=tmp_path / "failures")


@TARGETS
def test_no_spoilt_file_is_read_wrongly(target, tmp_path):
    outcomes = fuzz.fuzz(options(target, tmp_path), max_cases=300)
    assert outcomes["failure"] == 0 and outcomes["refused"] > 200
    assert not (tmp_path / "failures").exists()


@TARGETS
@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RecursionError(), ValueError("x")])
def test_a_reader_that_fails_otherwise_is_seen_and_the_file_kept(
    target, error, tmp_path, monkeypatch
):
    kind = fuzz.TARGETS[target]
    seen = []

    def read(self, path):
        seen.append(path.read_bytes())
        raise error

    monkeypatch.setattr(kind, "read", read)
    outcomes = fuzz.fuzz(options(target, tmp_path), max_cases=2)
    assert outcomes == {"failure": 2}
    kept = sorted((tmp_path / "failures").iterdir())
    assert [path.name for path in kept] == [f"{target}-1-0", f"{target}-1-1"]
    assert [path.read_bytes() for path in kept] == seen


@TARGETS
def test_a_reader_that_takes_long_is_seen_and_the_time_ends(target, tmp_path, monkeypatch, clock):
    def read(self, path):
        clock.now += 2.5
        raise ValueError(str(path))

    monkeypatch.setattr(fuzz.TARGETS[target], "read", read)
    outcomes = fuzz.fuzz(fuzz.Options(target, minutes=0.2, failures=tmp_path / "failures"))
    assert outcomes == {"failure": 5}  # in 12 seconds


def test_a_reader_that_reads_something_else_is_seen(tmp_path, monkeypatch):
    read = fuzz.read_array_list
    monkeypatch.setattr(fuzz, "read_array_list", lambda path: [a + 1 for a in read(path)])
    assert fuzz.fuzz(options("pickle", tmp_path), max_cases=300)["failure"] > 0
    whole = fuzz.read_tensors

    def first_value_zero(path):
        tensors, about = whole(path)
        return {name: array * 0 for name, array in tensors.items()}, about

    target = fuzz.Tensors(tmp_path / "file")
    (tmp_path / "file").write_bytes(target.valid[1])
    assert target.judge(target.read(tmp_path / "file"), tmp_path / "file") == "loaded"
    monkeypatch.setattr(fuzz, "read_tensors", first_value_zero)
    assert target.judge(target.read(tmp_path / "file"), tmp_path / "file") == fuzz.WRONG


@TARGETS
def test_a_case_is_the_same_file_each_time(target, tmp_path):
    spoil, valid = fuzz.TARGETS[target].spoil, fuzz.TARGETS[target](tmp_path / "file").valid
    for k in range(50):
        one, two = (spoil(valid[0], valid[1], random.Random(k)) for _ in range(2))
        assert one == two
