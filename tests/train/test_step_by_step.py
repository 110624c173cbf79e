"""The table against the published outputs, the figure, and an exit code that means something."""

import json
from pathlib import Path

import numpy as np
import pytest

from train import step_by_step
from train.published_values import STEP_BY_STEP, TOLERANCE, Case

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "step_by_step.json").read_text())


def test_the_table_in_the_package_is_the_published_one():
    assert GOLDENS["tolerance"]["float64"] == TOLERANCE
    assert list(STEP_BY_STEP) == list(GOLDENS["functions"])
    for function, golden in GOLDENS["functions"].items():
        case = STEP_BY_STEP[function]
        assert golden["seed"] == 1
        assert list(case.draws.items()) == [(name, tuple(shape)) for name, shape in golden["draws"]]
        assert list(case.zeros.items()) == [(name, tuple(shape)) for name, shape in golden["zeros"]]
        figures = {f"{f['name']}{f['index']}": np.ravel(f["value"]) for f in golden["expected"]}
        assert list(case.values) == list(figures)
        for part, printed in case.values.items():
            assert printed.split() == [f"{value:.8f}" for value in figures[part]]


def test_a_run_prints_every_part_and_leaves_a_figure_and_the_numbers(tmp_path, capsys):
    step_by_step.main(step_by_step.Options(out=tmp_path / "run"))
    printed = capsys.readouterr().out
    assert "44 of 44 met to 1e-07" in printed and "gru_backward: ok" in printed
    for function, case in STEP_BY_STEP.items():
        for part in case.values:
            assert f"{function:<20}{part}" in printed
    figure = tmp_path / "run" / "step_by_step.png"
    assert printed.endswith(f"saved to {figure}\n")
    assert 20_000 < figure.stat().st_size < 100_000
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["ok"] and all(row["ok"] for row in results["published"])
    for kind, norms in results["gradient_norms"].items():
        assert set(norms) == ({"da", "dc"} if kind == "lstm" else {"da"})
        assert len(norms["da"]) == 41  # before the first and after each of 40 steps
        assert norms["da"][-1] == pytest.approx(1)
    gate, no_gate = (results["gradient_norms"][kind]["da"][0] for kind in ("gru", "rnn"))
    assert no_gate < 1e-4 < 1e-2 < gate


def test_the_gradient_that_is_drawn_is_that_of_the_whole_sequence():
    rng = np.random.default_rng(0)
    x, da_last = rng.standard_normal((3, 1, 6)), rng.standard_normal((5, 1))
    for kind in step_by_step.KINDS:
        parameters = step_by_step.draw_parameters(kind, 5, rng)
        trace = step_by_step.follow(kind, x, parameters, da_last)
        functions = step_by_step.step_by_step
        a, *_, caches = getattr(functions, f"{kind}_forward")(x, np.zeros((5, 1)), parameters)
        da = np.zeros((5, 1, 6))
        da[:, :, -1] = da_last
        da0 = getattr(functions, f"{kind}_backward")(da, caches)["da0"]
        assert trace.norms["da"][0] == pytest.approx(np.linalg.norm(da0))
        np.testing.assert_array_equal(trace.states, a[:, 0])


def test_every_number_is_printed_when_asked_for(tmp_path, capsys):
    options = step_by_step.Options(out=tmp_path / "run", verbose=True, time_size=3, hidden_size=2)
    step_by_step.main(options)
    count = sum(len(v.split()) for case in STEP_BY_STEP.values() for v in case.values.values())
    assert f"{count} of {count} met to 1e-07" in capsys.readouterr().out


def test_a_value_that_is_off_is_marked_and_fails_the_command(tmp_path, monkeypatch, capsys):
    case = STEP_BY_STEP["rnn_cell_forward"]
    wrong = Case(case.draws, {"a_next[4]": "0.59584644 " + " ".join(9 * ["0"])})
    monkeypatch.setattr(step_by_step, "STEP_BY_STEP", {"rnn_cell_forward": wrong})
    with pytest.raises(SystemExit) as stop:
        step_by_step.main(step_by_step.Options(out=tmp_path / "run", time_size=3, hidden_size=2))
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "OFF" in printed and "0 of 1 met" in printed
    assert (tmp_path / "run" / "step_by_step.png").exists()
    assert json.loads((tmp_path / "run" / "results.json").read_text())["ok"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "--hidden-size: expected 1 or more, got 0"),
        ({"time_size": 0}, "--time-size: expected 1 or more, got 0"),
        ({"input_steps": -1}, "--input-steps: expected 1 or more, got -1"),
        ({"scale": float("nan")}, "expected scale and keep_bias to be finite, got nan and 3.0"),
    ],
)
def test_numbers_that_cannot_work_are_refused_before_a_folder_is_made(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        step_by_step.main(step_by_step.Options(out=tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
