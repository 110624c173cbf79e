"""How far a run is: one line that changes on a terminal, a line now and then elsewhere."""

import io
import itertools
import re
import sys
from pathlib import Path

import pytest

from common import plotting
from common.plotting import Status, progress, say

RECORD = {"lr": 20.0, "perplexity": 50.0, "ms_per_iteration": 3.0, "tokens_per_second": 1000.0}


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self):
        return True


class Clock:
    """The time that the code under test sees."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(plotting.time, "perf_counter", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def record(epoch, iteration, iterations=100):
    step = (epoch - 1) * iterations + iteration
    place = {"epoch": epoch, "iteration": iteration, "iterations": iterations, "step": step}
    return {**RECORD, **place}


def shown(clock, epochs, seconds_per_iteration, every=1, iterations=100):
    """Show a record after so many iterations each; the times of the clock at which a line came."""
    status, times = Status(epochs, 0), []
    for epoch in range(1, epochs + 1):
        for k in range(1, iterations + 1):
            clock.now += seconds_per_iteration
            if k % every == 0:
                before = sys.stdout.getvalue().count("\n")
                status.show(record(epoch, k, iterations))
                times += [clock.now] * (sys.stdout.getvalue().count("\n") - before)
    return times


@pytest.fixture
def streams(monkeypatch):
    """Puts streams of a kind in the place of stdout and stderr, within the test."""

    def put(kind):
        monkeypatch.setenv("COLUMNS", "90")
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, kind())

    return put


# ---- training ----


def test_a_line_says_when_the_epoch_and_when_the_run_ends(clock):
    status = Status(epochs=3, iteration=0)
    clock.now += 40  # 20 iterations in 40 seconds
    line = status.text(record(1, 20))
    assert line == (
        "| epoch 1 | iteration 20 / 100 | 02:40 left, run 09:20 | perplexity 50.00 | lr 20 "
        "| 3.0 ms/it | 1,000 tokens/s"
    )
    clock.now += 12 * 3600 + 160
    assert "| 00:00 left, run 24:06:40 |" in status.text(record(1, 100))


def test_a_run_that_goes_on_takes_its_pace_from_what_this_process_does(clock):
    status = Status(epochs=2, iteration=150)
    assert status.run_left() == "?"
    clock.now += 10
    assert "| 00:40 left, run 00:40 |" in status.text(record(2, 60))
    clock.now += 10  # such as for a validation
    assert status.run_left() == "01:20"


def test_into_a_file_go_ten_lines_an_epoch(clock, streams):
    streams(io.StringIO)
    times = shown(clock, epochs=3, seconds_per_iteration=0.5)
    assert len(times) == 1 + 3 * 10
    assert times[0] == 102  # two seconds after the beginning


def test_into_a_file_goes_a_line_every_minute_where_an_epoch_takes_long(clock, streams):
    streams(io.StringIO)
    times = shown(clock, epochs=1, seconds_per_iteration=20.0)
    waits = [b - a for a, b in zip([100.0, *times], times, strict=False)]
    assert max(waits) == 60 and len(times) < 50


def test_no_two_lines_come_within_two_seconds(clock, streams):
    streams(io.StringIO)
    times = shown(clock, epochs=20, seconds_per_iteration=1 / 64)
    assert len(times) == 15  # of 31 seconds
    assert min(b - a for a, b in itertools.pairwise(times)) >= 2


def test_every_record_is_printed_where_they_are_rarer_than_lines(clock, streams):
    streams(io.StringIO)
    assert len(shown(clock, epochs=2, seconds_per_iteration=0.5, every=25)) == 8


def test_on_a_terminal_one_line_changes_and_is_gone_when_the_epoch_ends(clock, streams):
    streams(Terminal)
    status = Status(epochs=1, iteration=0)
    for k in range(1, 101):
        clock.now += 1
        status.show(record(1, k))
    drawn = sys.stdout.getvalue()
    assert "\n" not in drawn
    assert drawn.count("iteration ") == 100
    assert max(map(len, drawn.split("\r"))) <= 89  # columns, and one for the cursor
    assert drawn.split("\r")[-2].isspace() and drawn.endswith("\r")


def test_what_is_said_meanwhile_stands_above_the_line(clock, streams):
    streams(Terminal)
    status = Status(epochs=1, iteration=0)
    clock.now += 1
    status.show(record(1, 1))
    say("| the weights are averaged from now on")
    status.close()
    wiped, said = sys.stdout.getvalue().split("| the weights")
    assert re.search(r"\r +\r$", wiped)
    assert said.startswith(" are averaged from now on\n")


# ---- whatever else works for minutes ----


def test_a_bar_is_a_plain_line_a_minute_where_nobody_looks(clock, streams):
    streams(io.StringIO)
    with progress(total=600, unit=" tokens", desc="perplexity") as bar:
        for _ in range(600):
            clock.now += 0.5
            bar.update()
    lines = sys.stderr.getvalue().split("\n")
    assert lines == [
        "| perplexity: 20 % of 600 tokens, 04:00 left",
        "| perplexity: 40 % of 600 tokens, 03:00 left",
        "| perplexity: 60 % of 600 tokens, 02:00 left",
        "| perplexity: 80 % of 600 tokens, 01:00 left",
        "| perplexity: 100 % of 600 tokens, 00:00 left",
        "",
    ]
    assert sys.stdout.getvalue() == ""


def test_what_is_done_within_a_minute_says_nothing(clock, streams):
    streams(io.StringIO)
    for _ in progress(range(59), desc="gradients"):
        clock.now += 1
    assert sys.stderr.getvalue() == ""


def test_bars_within_a_bar_are_plain_lines_too(clock, streams):
    streams(io.StringIO)
    for _ in progress(range(2), desc="settings", unit=" settings"):
        for _ in progress(range(3), desc="tokens", unit=" tokens"):
            clock.now += 40
        say("| found")
    lines = sys.stderr.getvalue().splitlines()
    assert lines and all(re.fullmatch(r"\| \w+: \d+ % of .*, [\d:]+ left", line) for line in lines)
    assert sys.stdout.getvalue() == "| found\n" * 2


def test_a_bar_is_drawn_on_a_terminal_and_gone_at_the_end(clock, streams):
    streams(Terminal)
    with progress(total=10, unit=" tokens", desc="perplexity") as bar:
        for _ in range(10):
            clock.now += 1
            bar.update()
    drawn = sys.stderr.getvalue()
    assert "perplexity:  50%|" in drawn and "\n" not in drawn
    assert drawn.split("\r")[-2].isspace()


def test_every_bar_is_one_of_these():
    root = Path(plotting.__file__).parents[1]
    sources = [
        path
        for part in ("common", "datasets", "models", "train")
        for path in (root / part).rglob("*.py")
    ]
    drawing = [path.name for path in sources if "import tqdm" in path.read_text(encoding="utf-8")]
    assert drawing == ["plotting.py"]
