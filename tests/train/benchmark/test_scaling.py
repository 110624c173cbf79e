"""Statistics and plan are right, processes are started as they should, and one real run works."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.processes import Processes
from tests.mpi import needs_mpi
from train.benchmark import scaling
from train.benchmark.scaling import (
    QUICK,
    Case,
    Options,
    Report,
    WithoutSums,
    launcher,
    measure,
    measured,
    setups,
    zipf_ids,
)
from train.benchmark.scaling_plan import PROCESSES, Network, Plan, Traffic, draw
from train.benchmark.workloads import Sizes

SLOW, FAST = Network(8, 0.001), Network(80, 0.0)  # 1 GB/s after a millisecond, 10 GB/s at once
TRAFFIC = Traffic((16, 4000), 320, 400)
MACHINE = dict.fromkeys(("cpu", "cores", "system", "python", "numpy", "blas"), "?")


class TestNetwork:
    def test_a_large_array_goes_round_the_ring(self):
        # 2 * 3 ms, and 2 * 3 / 4 of 100 MB
        assert SLOW.sum_seconds(4, 100_000_000) == pytest.approx(0.006 + 0.15)

    def test_a_small_array_goes_by_recursive_doubling(self):
        # twice a millisecond and 1000 bytes
        assert SLOW.sum_seconds(4, 1000) == pytest.approx(2 * 0.001001)

    def test_two_processes_exchange_all_once_by_doubling(self):
        assert SLOW.sum_seconds(2, 1_000_000) == pytest.approx(0.002)

    def test_without_latency_the_ring_sends_less(self):
        assert FAST.sum_seconds(64, 10_000_000_000) == pytest.approx(2 * 63 / 64)

    def test_collecting_takes_what_all_others_send(self):
        assert SLOW.gather_seconds(8, 1_000_000) == pytest.approx(0.003 + 7 * 0.001)

    def test_its_name_has_both_figures(self):
        assert str(Network(10, 50e-6)) == "10 Gbit/s, α = 50 µs"


class TestPlan:
    def plan(self, **changes):
        # adding up 1 GB over 2 processes takes 1.001 s on SLOW
        sizes = Sizes(N=2, T=5, V=50)
        return replace(Plan(sizes, 3.0, Traffic((1_000_000_000,), 0, 0), 0.0), **changes)

    def test_what_is_not_hidden_is_added(self):
        assert self.plan().seconds(2, SLOW) == pytest.approx(3 + 1.001)
        assert self.plan(hidden=0.4).seconds(2, SLOW) == pytest.approx(3 + 0.6 * 1.001)

    def test_at_most_the_backward_pass_hides_it(self):
        assert self.plan(hidden=1.0).seconds(2, SLOW) == pytest.approx(3)
        assert self.plan(compute=0.3, hidden=1.0).seconds(2, SLOW) == pytest.approx(0.3 + 0.801)

    def test_the_efficiency_is_one_where_nothing_is_sent(self):
        assert self.plan(traffic=Traffic((), 0, 0)).efficiency(64, SLOW) == 1
        assert self.plan(compute=1.001).efficiency(2, SLOW) == pytest.approx(0.5)

    def test_rows_travel_while_they_are_fewer_than_the_table(self):
        plan = self.plan(traffic=Traffic((), 100_000_000, 2_000_000_000))
        # 2 * 2 * 5 ids for a table of 50 rows, then 8 * 2 * 5
        assert plan.seconds(2, SLOW) == pytest.approx(3 + 0.001 + 0.1)
        assert plan.seconds(8, SLOW) == pytest.approx(3 + 0.014 + 2 * 7 / 8 * 2)

    def test_a_tied_table_is_not_added_up_twice(self):
        plan = self.plan(traffic=Traffic((1000,), 100, 0))
        assert plan.seconds(8, SLOW) == pytest.approx(3 + 3 * 0.001001)


def case(one=(4.0, 8.0), each=(5.0, 8.0), at_end=(6.0, 10.0), no_sums=(4.0, 7.0)):
    """One round for each number, of three steps around it."""

    def steps(seconds):
        return [seconds, 0.9 * seconds, 1.5 * seconds]

    rounds = [
        {
            "one": {"step": steps(a)},
            "threads": {"step": steps(a / 2)},
            "shared": {"step": steps(a / 1.6)},
            "each": {"step": steps(b), "at_end": steps(c), "no_sums": steps(d)},
        }
        for a, b, c, d in zip(one, each, at_end, no_sums, strict=True)
    ]
    return Case(Sizes(N=2, T=5, D=4, H=4, V=50), rounds, TRAFFIC)


class TestCase:
    def test_seconds_are_medians_of_medians(self):
        assert case().seconds("one") == 6
        assert case().seconds("each", "no_sums") == 5.5

    def test_rivals_are_compared_round_by_round(self):
        assert case(one=(4.0, 9.0), each=(5.0, 9.0)).gain("each") == pytest.approx(
            (0.85, 0.9, 0.95)
        )
        assert case().gain("threads") == pytest.approx((2, 2, 2))

    def test_a_single_round_is_its_own_quartiles(self):
        alone = case((4.0,), (5.0,), (6.0,), (3.0,))
        assert alone.gain("each") == pytest.approx((0.8, 0.8, 0.8))

    def test_costs_are_differences_of_steps_that_followed_each_other(self):
        drifting = case()
        # the machine slows down: medians of the kinds would say 0.5
        drifting.rounds = [{"each": {"at_end": [2.0, 4.0, 6.5], "no_sums": [1.0, 3.5, 5.5]}}]
        assert drifting.cost("at_end") == (1, 1, 1)

    def test_the_share_that_overlapping_hides(self):
        assert case().cost("at_end") == pytest.approx((2.25, 2.5, 2.75))
        assert case().cost("step") == pytest.approx((1, 1, 1))
        assert case().hidden == pytest.approx(0.6)
        assert case().plan().hidden == pytest.approx(0.6)

    def test_below_zero_where_overlapping_costs_more(self):
        worse = case(each=(6.5, 10.5))
        assert worse.hidden == pytest.approx(-0.2)
        assert worse.plan().hidden == 0

    @pytest.mark.parametrize(
        "at_end",
        [(4.03, 7.03), (3.9, 9.0), (3.0, 6.0)],
        ids=["a hundredth of a step", "rounds that differ", "negative"],
    )
    def test_not_known_where_the_cost_is_noise(self, at_end):
        noise = case(at_end=at_end)
        assert noise.hidden is None
        assert noise.plan().hidden == 0


class TestReport:
    def report(self):
        noise = case(at_end=(4.0, 7.0))
        noise.sizes = replace(noise.sizes, model="BetterRnnlm")
        sums = {4096: [[1e-5, 2e-5, 9e-5], [4e-5]], 16384: [[1e-4], [1e-4]]}
        return Report(MACHINE, 2, [SLOW, FAST], [case(), noise], sums)

    def test_a_program_reads_every_time(self):
        content = json.loads(json.dumps(self.report().as_dict(), allow_nan=False))
        first, noise = content["cases"]
        assert first["rounds"] == case().rounds
        assert first["median"]["each"] == {"step": 6.5, "at_end": 8, "no_sums": 5.5}
        assert first["weak_efficiency"] == pytest.approx([0.85, 0.9, 0.95])
        assert first["strong_speedup"][1] == pytest.approx(1.6)
        assert first["traffic"] == {"sums": [16, 4000], "rows": 320, "table": 400}
        assert (first["hidden"], noise["hidden"]) == (pytest.approx(0.6), None)
        assert content["sums"][0]["rounds"] == [[1e-5, 2e-5, 9e-5], [4e-5]]
        assert content["sums"][0]["quartiles"][1] == pytest.approx(3e-5)

    def test_a_program_reads_what_is_computed_apart_from_what_is_measured(self):
        computed = self.report().as_dict()["computed"]
        assert "Patarasuk and Yuan 2009" in computed["how"]
        assert len(computed["curves"]) == 4
        curve = computed["curves"][0]
        assert curve["network"] == {"gbit": 8, "latency": 0.001}
        assert curve["seconds"][0] == pytest.approx(case().plan().seconds(2, SLOW))
        assert len(curve["efficiency"]) == len(PROCESSES)

    def test_a_person_reads_a_row_for_each_model_and_size(self):
        measured_rows, computed_rows = (
            [line for line in text.splitlines() if "| 4 |" in line and "Rnnlm" in line]
            for text in str(self.report()).split("computed:")
        )
        first, noise = measured_rows
        assert first.startswith("| Rnnlm | 4 | 6,000 | 6,500 | 5,500 | 0.90 (0.85-0.95) | ")
        assert first.endswith(" | 2,500 | 1,000 | 60 % |")
        assert noise.startswith("| BetterRnnlm | 4 |") and noise.endswith("| cost is noise |")
        assert computed_rows[0].startswith("| Rnnlm | 4 | 60 % | 1.00 / 1.00 |")
        assert "| not known, so 0 % |" in computed_rows[1]

    def test_every_row_has_as_many_cells_as_its_head(self):
        table = []
        for line in [*str(self.report()).splitlines(), ""]:
            if line.startswith("|"):
                table.append(line.count("|"))
            else:
                assert len(set(table)) <= 1
                table = []

    def test_the_figure_is_a_small_file(self, tmp_path):
        report, file = self.report(), tmp_path / "scaling.png"
        plans = [each.plan() for each in report.cases]
        gains = [each.gain("each") for each in report.cases]
        draw(file, plans, gains, report.sum_seconds(), report.networks, 2)
        assert 5_000 < file.stat().st_size < 120_000


class TestWithoutSums:
    def silent(self):
        processes = object.__new__(Processes)
        vars(processes).update(rank=1, size=2)
        return WithoutSums(processes)

    def test_it_is_the_same_process_but_adds_nothing_up(self):
        silent, array = self.silent(), np.arange(3.0)
        silent.begin_sum(array)()
        np.testing.assert_array_equal(array, np.arange(3.0))
        assert (silent.rank, silent.summed) == (1, [24])
        assert silent.shares(5) == [3, 2]

    def test_it_repeats_its_own_rows(self):
        silent = self.silent()
        rows = silent.rows_of_all(np.array([[1, 2], [3, 4]]), [3, 2])
        np.testing.assert_array_equal(rows, [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]])
        assert silent.collected == 32


def test_ids_are_the_same_each_time_and_the_first_is_the_commonest():
    ids = zipf_ids(100, 20_000)
    np.testing.assert_array_equal(ids, zipf_ids(100, 20_000))
    counts = np.bincount(ids, minlength=100)
    assert ids.dtype == np.int32 and len(counts) == 100
    total = sum(1 / k for k in range(1, 101))
    assert counts[0] / 20_000 == pytest.approx(1 / total, rel=0.05)
    assert counts[9] / 20_000 == pytest.approx(0.1 / total, rel=0.2)


class TestMeasuring:
    def answers(self, calls):
        """Stands for the processes: notes how they are started."""

        def answer(processes, threads, command, *arguments):
            calls.append((processes, threads, command))
            if command == "sums":
                return {"seconds": [[0.1, 0.2]] * 2}
            kinds = arguments[arguments.index("--kinds") + 1 :]
            traffic = json.loads(json.dumps(asdict(TRAFFIC))) if "no_sums" in kinds else None
            return {"seconds": {kind: [0.5] for kind in kinds}, "traffic": traffic}

        return answer

    def test_rivals_take_turns_and_each_measurement_has_new_processes(self, monkeypatch):
        calls = []
        monkeypatch.setattr(scaling, "measured", self.answers(calls))
        report = Report(MACHINE, 3, [SLOW, FAST], [Case(QUICK)], {4096: [], 16384: []})
        measure(report, Options(repeats=2))
        forth = [(1, 1, "steps"), (1, 3, "steps"), (3, 1, "steps"), (3, 1, "steps")]
        sums = (3, 1, "sums")
        assert calls == [*forth, sums, *reversed(forth), sums]
        assert len(report.cases[0].rounds) == 2
        assert report.cases[0].traffic == TRAFFIC
        assert report.sums == {4096: [[0.1, 0.2]] * 2, 16384: [[0.1, 0.2]] * 2}

    def test_weak_scaling_has_as_many_streams_for_each_process_as_one_has(self):
        assert {name: setup.N for name, setup in setups(3, 20).items()} == {
            "one": 20,
            "threads": 20,
            "shared": 20,
            "each": 60,
        }

    def test_one_process_is_started_without_mpiexec_and_its_threads_are_named(self, monkeypatch):
        started = {}

        def run(command, env, **options):
            started.update(command=command, env=env)
            return SimpleNamespace(returncode=0, stdout='noise\n{"seconds": {}}\n', stderr="")

        monkeypatch.setattr(scaling, "launcher", lambda: "mpiexec")
        monkeypatch.setattr(scaling.subprocess, "run", run)
        assert measured(1, 2, "steps") == {"seconds": {}}
        assert started["command"][0] == sys.executable
        assert started["env"]["OPENBLAS_NUM_THREADS"] == "2"
        measured(4, 1, "sums", "--seconds", 2.0)
        assert started["command"][:4] == ["mpiexec", "-n", "4", sys.executable]
        assert started["command"][-3:] == ["sums", "--seconds", "2.0"]

    def test_processes_that_failed_are_quoted(self):
        message = r"measuring steps on 1 processes ended with exit code 1:\nerror: Rnnlm: .* got 0"
        with pytest.raises(RuntimeError, match=message):
            measured(1, 1, "steps", "--sizes.H", 0)


class TestLauncher:
    def test_the_one_beside_this_python_comes_first(self, tmp_path, monkeypatch):
        beside, elsewhere = tmp_path / "bin" / "mpiexec", tmp_path / "path" / "mpiexec"
        for file in (beside, elsewhere):
            file.parent.mkdir()
            file.touch(mode=0o755)
        monkeypatch.setattr(scaling, "find_spec", lambda name: name)
        monkeypatch.setattr(sys, "executable", str(beside.with_name("python")))
        monkeypatch.setenv("PATH", str(elsewhere.parent))
        assert Path(launcher()) == beside
        beside.unlink()
        assert Path(launcher()) == elsewhere

    @pytest.mark.parametrize("missing", ["mpiexec", "mpi4py"])
    def test_what_is_missing_is_named_with_the_extra_that_brings_it(self, missing, monkeypatch):
        there = {"mpiexec", "mpi4py"} - {missing}
        monkeypatch.setattr(scaling, "find_spec", lambda name: name if name in there else None)
        monkeypatch.setattr(
            scaling.shutil, "which", lambda name, path=None: name if name in there else None
        )
        message = rf'^{missing}, .* is missing; pip install "time-layers\[mpi\]"'
        with pytest.raises(RuntimeError, match=message):
            launcher()


class TestCommand:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"repeats": 0}, "--repeats: expected 1 or more, got 0"),
            ({"steps": 0}, "--steps: expected 1 or more, got 0"),
            ({"seconds": 0.0}, r"--seconds: expected more than 0, got 0\.0"),
            ({"models": ()}, "--models: expected one or more, each once"),
            ({"hidden_sizes": (100, 100)}, "--hidden-sizes: expected one or more, each once"),
            ({"hidden_sizes": (100, 0)}, "--hidden-sizes: expected 1 or more, got 0"),
            ({"latency_us": (50.0, -1.0)}, "--latency-us: expected 0 or more"),
            ({"processes": 1}, "--processes: expected 2 to "),
            ({"processes": 21}, "--processes: expected 2 to "),
            ({"processes": 5, "quick": True}, "--processes: expected 2 to 4, a core and a stream"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, changes, message, monkeypatch):
        monkeypatch.setattr(scaling, "launcher", lambda: "mpiexec")
        with pytest.raises(ValueError, match=message):
            scaling.main(Options(**changes))

    def test_there_is_a_core_for_each_process(self, monkeypatch):
        monkeypatch.setattr(scaling, "usable_cores", lambda: [0, 1, 2])
        with pytest.raises(ValueError, match=r"--processes: expected 2 to 3, .* got 4"):
            scaling.main(Options(processes=4))

    def test_help_names_the_command_and_its_options(self):
        done = subprocess.run(
            [sys.executable, "-m", "train.benchmark", "scaling", "--help"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0
        assert "usage: python -m train.benchmark scaling" in done.stdout
        assert "--hidden-sizes" in done.stdout

    @pytest.mark.slow
    @needs_mpi
    def test_a_quick_run_measures_prints_and_draws(self, tmp_path, capsys):
        run = tmp_path / "run"
        scaling.main(Options(quick=True, out=run))
        printed = capsys.readouterr().out
        assert printed.endswith(f"figure saved to {run / 'scaling.png'}\n")
        assert (run / "scaling.png").exists()
        content = json.loads((run / "results.json").read_text())
        assert [each["sizes"]["model"] for each in content["cases"]] == ["Rnnlm", "BetterRnnlm"]
        for each in content["cases"]:
            (times,) = each["rounds"]
            samples = [kind for setup in times.values() for kind in setup.values()]
            assert len(samples) == 6
            assert all(math.isfinite(s) and s > 0 for steps in samples for s in steps)
        rnnlm, better = (each["traffic"] for each in content["cases"])
        of_rows = QUICK.N * QUICK.T * (QUICK.H + 1) * 4  # of 8 numbers, and an id
        assert rnnlm["rows"] == better["rows"] == of_rows
        table = QUICK.V * QUICK.H * 4
        assert 0.9 * table < rnnlm["table"] <= table and better["table"] == 0
        assert [len(each["rounds"][0]) for each in content["sums"]] == [scaling.SUM_BLOCKS] * 3
