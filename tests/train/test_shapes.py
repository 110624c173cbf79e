"""The command that teaches the five shapes; that they learn is tested beside the models."""

import json

import numpy as np
import pytest

from train.shapes import SETUPS, Options, main, train


def test_a_short_run_prints_a_table_and_leaves_a_picture(tmp_path, capsys):
    out = tmp_path / "run"
    main(Options(effort=0.05, out=out))
    results = json.loads((out / "results.json").read_text())
    printed = capsys.readouterr().out
    assert list(results) == list(SETUPS)
    for shape, result in results.items():
        assert 0 <= result["accuracy"] <= 1
        (line,) = (line for line in printed.splitlines() if line.startswith(f"{shape}  "))
        assert result["task"] in line and f"{result['accuracy']:.1%}" in line
    assert printed.endswith(f"shapes saved to {out / 'shapes.png'}\n")
    assert {path.name for path in out.iterdir()} == {"config.json", "results.json", "shapes.png"}
    assert (out / "shapes.png").stat().st_size < 120_000


def test_effort_is_a_share_of_the_epochs():
    epochs = SETUPS["step by step"].epochs
    assert len(train("step by step", seed=1, effort=0.2).losses) == round(0.2 * epochs)
    assert len(train("step by step", seed=1, effort=1e-9).losses) == 1


def test_one_seed_teaches_the_same_twice():
    first, same, other = (train("one to many", seed, effort=0.1) for seed in (1, 1, 2))
    assert first.losses == same.losses != other.losses
    x = first.task.x_test
    np.testing.assert_array_equal(first.probabilities(x), same.probabilities(x))


def test_probabilities_add_up_and_accuracy_counts_whole_answers():
    trained = train("one to many", seed=1, effort=0.1)
    p, t = trained.probabilities(trained.task.x_test), trained.task.t_test
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
    right = p.argmax(axis=-1) == t
    assert trained.accuracy == right.all(axis=1).mean() < right.mean()


@pytest.mark.parametrize("effort", [0.0, -1.0, float("nan"), float("inf")])
def test_no_effort_is_refused_before_a_folder_is_made(tmp_path, effort):
    with pytest.raises(ValueError, match="--effort: expected a finite number above 0"):
        main(Options(effort=effort, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
