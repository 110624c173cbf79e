"""The cost of an output layer: what is measured, what is said of it, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from train.benchmark import output
from train.benchmark.workloads import Sizes, Workload


def test_the_text_has_the_words_as_often_as_the_law_says():
    ids = output.drawn_ids(10_000)
    assert (ids.vocab_size, len(ids.train)) == (10_000, output.TOKENS)
    shares = np.bincount(ids.train, minlength=10_000) / output.TOKENS
    law = output.frequencies(10_000)
    assert law.sum() == pytest.approx(1) and (np.diff(law) < 0).all()
    np.testing.assert_allclose(shares[:20], law[:20], rtol=0.1)
    np.testing.assert_array_equal(ids.train, output.drawn_ids(10_000).train)


def test_the_comment_on_the_law_is_true():
    reached = output.frequencies(267_735).cumsum()
    assert (round(reached[1_999], 2), round(reached[9_999], 2)) == (0.81, 0.89)


def test_every_number_of_words_is_measured_with_every_kind_of_layer():
    found = output.workloads((300, 1000), Sizes(H=8, D=8))
    names = [f"{kind}, V {V:,}" for V in (300, 1000) for kind in output.KINDS]
    assert [each.name for each in found] == names
    dense, adaptive, tied = (each.sizes for each in found[3:])
    assert (dense.cutoffs, dense.tied) == ((), False)
    assert adaptive.cutoffs == tied.cutoffs and len(tied.cutoffs) == 2
    assert (adaptive.tied, tied.tied) == (False, True)


class Side:
    """Stands for a process: notes what is asked of it."""

    def __init__(self, side, ids, allocator, calls):
        self.side, self.calls = side, calls
        calls.append((side, "start"))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.calls.append((self.side, "end"))

    def call(self, method, *arguments):
        self.calls.append((self.side, method, *arguments))
        settings = {"threads": 1} if self.side == "torch" and method == "prepare" else {}
        return 5e6 if method == "peak_memory" else settings

    def cost(self, workload):
        self.calls.append((self.side, "cost"))
        return {"time_layers": 30.0, "torch": 60.0, "reference": 20.0}[self.side]


def measured(calls, repeats=2):
    sizes = Sizes(V=300, H=8, D=8, cutoffs=(10, 30))
    workload = Workload("adaptive, V 300", "step", sizes, 3, "ms/step", 1e3)
    reference = (
        Side("reference", None, {}, calls),
        replace(workload, name="dense, V 100", sizes=Sizes(V=100)),
    )
    start = lambda side, ids, allocator: Side(side, ids, allocator, calls)  # noqa: E731
    return output.measure(workload, reference, start, repeats, tries=2), reference[1]


def test_the_sides_and_the_reference_take_turns_and_memory_is_that_of_fresh_processes(monkeypatch):
    monkeypatch.setattr(output, "SETTLE", 0)
    calls = []
    found, _ = measured(calls)
    asked = [side for side, method, *_ in calls if method == "cost"]
    assert asked == ["reference", "time_layers", "torch"] * 2
    lives = [(side, method) for side, method, *_ in calls if method in ("start", "end")]
    both = ["time_layers", "torch"]
    assert lives[1:3] == [(side, "start") for side in both]
    assert sorted(lives[3:5]) == [(side, "end") for side in both]
    assert lives[5:] == [(side, method) for side in both for method in ("start", "end")]
    assert ("torch", "apply", {"threads": 1}) in calls
    assert found.memory == {"time_layers": 5.0, "torch": 5.0}
    assert found.ratio("torch")[0] == 0.5 and found.ratio("reference")[0] == 1.5


def test_a_person_reads_both_ratios_and_a_program_every_sample(monkeypatch, tmp_path):
    monkeypatch.setattr(output, "SETTLE", 0)
    found, reference = measured([])
    printed = output.table([found], reference)
    row = next(line for line in printed.splitlines() if line.startswith("adaptive, V 300 "))
    figures = "30 ms 60 ms 0.50 0.50-0.50 1.50 5 MB 5 MB"
    assert " ".join(row.split()[3:]) == figures
    assert "1.50 of dense, V 100 (2 at most), 0.50 of PyTorch (0.6 at most)" in printed
    assert "PyTorch, adaptive, V 300: threads=1" in printed
    content = json.loads(json.dumps(found.as_dict()))
    assert content["samples"]["torch"] == [60, 60] and content["to_torch"] == [0.5, 0.5, 0.5]
    assert content["workload"]["sizes"]["cutoffs"] == [10, 30]
    output.draw([found, found], tmp_path / "output.png")
    assert 5_000 < (tmp_path / "output.png").stat().st_size < 120_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 1}, "--repeats: expected 2 or more, got 1"),
        ({"threads": 0}, "--threads: expected 1 to "),
        ({"only": "none"}, "--only none: expected part of one of dense, V 10,000; adaptive"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_there_is_a_folder(
    changes, message, monkeypatch, tmp_path
):
    monkeypatch.setattr("train.benchmark.speed.find_spec", lambda name: name)
    with pytest.raises(ValueError, match=message):
        output.main(output.Options(**changes, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_quick_run_measures_prints_and_draws(tmp_path, capsys):
    pytest.importorskip("torch", reason="compares with PyTorch")
    run = tmp_path / "run"
    output.main(output.Options(quick=True, only="1,000", threads=1, out=run))
    assert capsys.readouterr().out.endswith(f"figure saved to {run / 'output.png'}\n")
    content = json.loads((run / "results.json").read_text())
    names = [each["workload"]["name"] for each in content["workloads"]]
    assert names == [f"{kind}, V 1,000" for kind in output.KINDS]
    for each in content["workloads"]:
        assert {len(samples) for samples in each["samples"].values()} == {2}
        assert min(each["memory"].values()) > 1
