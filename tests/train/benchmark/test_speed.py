"""The command refuses what cannot be measured, and measures, prints and draws the rest."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.train.benchmark.small_models import SMALL, some_ids
from train.benchmark import speed
from train.benchmark.processes import SideProcess
from train.benchmark.speed import measure_curve, measure_in_turns, measure_memory, read_ids
from train.benchmark.workloads import MEMORY, SIDES, TIMED, Sizes


class TestText:
    def test_without_the_penn_treebank_the_ids_are_random_and_the_same_each_time(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("TIMELAYERS_DATA", raising=False)
        monkeypatch.setattr("train.benchmark.speed.pooch.os_cache", lambda name: tmp_path)
        (a, text), (b, _) = read_ids(), read_ids()
        np.testing.assert_array_equal(a.train, b.train)
        assert a.vocab_size == 10_000 and a.train.max() > 9_900
        assert text.startswith("random ids")

    def test_a_folder_that_is_named_must_hold_the_penn_treebank(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt is missing"):
            read_ids(tmp_path)


class Recorder:
    """Stands for a process: notes the calls of all sides in one list."""

    def __init__(self, side, calls):
        self.side, self.calls = side, calls

    def call(self, method, *arguments):
        self.calls.append((self.side, method, *arguments))
        return {"threads": 1} if self.side == "torch" else {}

    def cost(self, workload):
        self.calls.append((self.side, "cost"))
        return float(len(self.calls))


class TestMeasuring:
    def test_the_sides_take_turns_and_the_slow_ones_join_every_third(self, monkeypatch):
        monkeypatch.setattr(speed, "SETTLE", 0)
        calls = []
        processes = {side: Recorder(side, calls) for side in SIDES}
        result = measure_in_turns(TIMED[0], processes, repeats=4, tries=3)
        turns = [side for side, method, *_ in calls if method == "cost"]
        pair = ["time_layers", "torch"]
        assert turns == [*SIDES, *pair, *pair, *SIDES]
        assert {side: len(samples) for side, samples in result.samples.items()} == {
            "time_layers": 4,
            "torch": 4,
            "torch_as_is": 2,
            "book": 2,
        }

    def test_each_side_builds_and_warms_up_and_only_tuned_pytorch_is_tuned(self, monkeypatch):
        monkeypatch.setattr(speed, "SETTLE", 0)
        calls = []
        processes = {side: Recorder(side, calls) for side in SIDES}
        result = measure_in_turns(TIMED[0], processes, repeats=2, tries=3)
        assert calls[: 2 * len(SIDES)] == [
            call
            for side, tries in zip(SIDES, (0, 3, 0, 0), strict=True)
            for call in ((side, "build", TIMED[0].sizes), (side, "prepare", "step", 5, tries))
        ]
        assert result.torch_settings == {"threads": 1}

    def test_a_curve_changes_one_size_at_a_time(self):
        calls = []
        curve = measure_curve("T", (9, 18), Recorder("time_layers", calls), repeats=2)
        built = [arguments[0] for _, method, *arguments in calls if method == "build"]
        assert built == [Sizes(T=9), Sizes(T=18)]
        assert curve.sizes == [9, 18] and [len(samples) for samples in curve.samples] == [2, 2]

    def test_memory_is_that_of_a_fresh_process(self):
        ballast = np.ones(40_000_000)  # a process that inherited it would report 320 MB more
        workload = replace(MEMORY[0], sizes=SMALL, count=2, sides=("time_layers", "book"))
        result = measure_memory(workload, lambda side: SideProcess(side, some_ids(), 1, {}))
        assert ballast.nbytes == 320_000_000
        assert all(20 < megabytes < 150 for (megabytes,) in result.samples.values())


class TestCommand:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"repeats": 1}, "--repeats: expected 2 or more, got 1"),
            ({"threads": 0}, "--threads: expected 1 to "),
            ({"only": "transformer"}, "expected part of one of Rnnlm step"),
            ({"only": "better", "quick": True}, "expected part of one of Rnnlm step"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, changes, message, monkeypatch):
        monkeypatch.setattr(speed, "find_spec", lambda name: name)
        with pytest.raises(ValueError, match=message):
            speed.main(speed.Options(**changes))

    def test_without_pytorch_it_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setattr(speed, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r'pip install -e "\.\[bench\]"'):
            speed.main(speed.Options())

    def test_help_names_the_command_and_its_options(self):
        done = subprocess.run(
            [sys.executable, "-m", "train.benchmark", "speed", "--help"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0
        assert "usage: python -m train.benchmark speed" in done.stdout
        assert "--quick" in done.stdout

    @pytest.mark.slow
    def test_a_quick_run_measures_prints_and_draws(self, tmp_path, monkeypatch, capsys):
        pytest.importorskip("torch", reason="compares with PyTorch")
        small = [replace(w, sizes=replace(w.sizes, N=3, T=5, D=4, H=6, V=11)) for w in TIMED]
        monkeypatch.setattr(speed, "TIMED", small)
        call = SideProcess.call  # the fastest product takes most of a quick run's time
        monkeypatch.setattr(
            SideProcess,
            "call",
            lambda side, name, *arguments: (
                1e11 if name == "matrix_peak" else call(side, name, *arguments)
            ),
        )
        run, file = tmp_path / "run", tmp_path / "speed.json"
        speed.main(speed.Options(quick=True, only="Rnnlm step", threads=1, out=run, json=file))
        printed = capsys.readouterr().out
        assert printed.endswith(f"figure saved to {tmp_path / 'run' / 'speed.png'}\n")
        assert (tmp_path / "run" / "speed.png").stat().st_size < 120_000
        content = json.loads((tmp_path / "speed.json").read_text())
        assert [each["workload"]["name"] for each in content["workloads"]] == [
            "Rnnlm step",
            "Rnnlm step with GRU",
        ]
        for each in content["workloads"]:
            assert len(each["samples"]["time_layers"]) == len(each["samples"]["torch"]) == 2
            assert math.isfinite(each["ratio"]) and each["torch_settings"]["threads"] == 1
        assert set(content["peak_gflops"]) == {"time_layers", "torch"}
