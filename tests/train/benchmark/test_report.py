"""The statistics are right, and table, JSON and figure say what was measured."""

import json

import pytest

from train.benchmark.report import Curve, Report, Result, aligned
from train.benchmark.workloads import MEMORY, TIMED


class TestExponents:
    @pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7])
    def test_of_a_pure_power_it_is_found(self, exponent):
        sizes = [10, 20, 40, 80]
        assert Curve("H", sizes, [[3.0 * s**exponent] for s in sizes]).exponent == pytest.approx(
            exponent
        )

    def test_a_fixed_cost_lowers_it(self):
        sizes = [10, 20, 40, 80]
        assert 0.5 < Curve("H", sizes, [[50 + 3.0 * s] for s in sizes]).exponent < 1

    def test_one_point_is_no_curve(self):
        with pytest.raises(ValueError, match="at least two"):
            Curve("H", [10], [[1.0]]).exponent  # noqa: B018

    def test_a_curve_takes_the_median_of_each_point(self):
        curve = Curve("H", [1, 2], [[1.0, 1.0, 9.0], [4.0, 4.0, 0.1]])
        assert curve.costs == [1, 4]
        assert curve.exponent == pytest.approx(2)


class TestReport:
    def result(self):
        pairs = {"time_layers": [10.0, 14.0, 12.0], "torch": [20.0, 20.0, 20.0]}
        samples = {**pairs, "torch_as_is": [25.0], "book": [50.0]}
        return Result(TIMED[0], samples, {"threads": 2})

    def report(self):
        machine = dict.fromkeys(("cpu", "cores", "system", "python", "numpy", "blas", "torch"), "?")
        report = Report(machine, 2, "some text", {"time_layers": 4.536e11, "torch": 1e11})
        report.results = [
            self.result(),
            Result(MEMORY[0], {"time_layers": [90.0], "torch": [400.0]}),
        ]
        report.curves = [Curve("H", [1, 2], [[1.0], [2.0]])]
        return report

    def test_ratios_are_taken_pair_by_pair(self):
        result = Result(TIMED[0], {"time_layers": [1.0, 4.0, 9.0], "torch": [1.0, 2.0, 3.0]})
        assert result.ratio == (2, 1.5, 2.5)

    def test_the_floor_is_that_of_the_faster_product(self):
        report = self.report()
        assert report.floor(report.results[0]) == pytest.approx(10)
        assert report.reached(report.results[0], "time_layers") == pytest.approx(10 / 12)
        assert report.floor(report.results[1]) is None

    def test_a_person_reads_every_number(self):
        printed = str(self.report())
        line = next(line for line in printed.splitlines() if line.startswith("Rnnlm step"))
        numbers = ["12.0", "20.0", "0.60", "0.55-0.65", "25.0", "50.0", "10.0", "83%", "50%"]
        assert line.split() == ["Rnnlm", "step,", "ms/step", *numbers]
        assert "threads=2" in printed
        assert "H^1.00" in printed

    def test_a_program_reads_every_sample(self):
        content = json.loads(json.dumps(self.report().as_dict()))
        first = content["workloads"][0]
        assert first["samples"]["time_layers"] == [10, 14, 12]
        assert first["median"] == {"time_layers": 12, "torch": 20, "torch_as_is": 25, "book": 50}
        assert first["workload"]["sizes"]["V"] == 10_000
        assert content["curves"][0]["exponent"] == pytest.approx(1)

    @pytest.mark.parametrize("part", ["results", "curves", "both"])
    def test_the_figure_shows_what_there_is_in_a_small_file(self, part, tmp_path):
        report = self.report()
        if part != "both":
            setattr(report, "curves" if part == "results" else "results", [])
        report.draw(tmp_path / "speed.png")
        assert 5_000 < (tmp_path / "speed.png").stat().st_size < 120_000


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("name", "figure", "note"), ("ab", "1,234,567", ""), ("longer name", "2", "x")]
    assert aligned(rows, left=("name", "note")) == [
        "name            figure  note",
        "ab           1,234,567",
        "longer name          2  x",
    ]
