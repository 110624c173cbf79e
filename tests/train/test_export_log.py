"""The log of a run as CSV, and what its lines hold."""

import csv
import json

import pytest

from tests.train.processes import TEXT
from train import export_log, rnnlm
from train.run import folder

SIZES = {"wordvec_size": 8, "hidden_size": 8, "batch_size": 8, "time_size": 11, "log_interval": 7}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "cats.txt").write_text(TEXT, encoding="utf-8")
    corpus, out = str(tmp_path / "cats.txt"), tmp_path / "run"
    rnnlm.main(rnnlm.Options(corpus=corpus, out=out, epochs=2, on_nan="skip", **SIZES))
    return out


def exported(run, capsys):
    capsys.readouterr()
    export_log.main(export_log.Options(run))
    return list(csv.DictReader(capsys.readouterr().out.splitlines(), strict=True))


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_row_is_a_line_and_a_column_a_field(run, capsys):
    rows, records = exported(run, capsys), lines_of(run)
    assert [{k: float(v) for k, v in row.items() if v} for row in rows] == records
    assert {tuple(row) for row in rows} == {
        (
            *("epoch", "iteration", "iterations", "step", "lr", "skipped", "loss", "perplexity"),
            *("ms_per_iteration", "tokens_per_second", "seconds", "valid"),
        )
    }


def test_every_field_is_explained(run):
    explained = folder.__doc__.split("log.jsonl of a language model")[1]
    for record in lines_of(run):
        for name in record:
            assert f"\n{name}  " in explained


def test_the_clock_of_a_log_never_goes_back(run):
    seconds = [record["seconds"] for record in lines_of(run)]
    assert seconds == sorted(seconds)


def test_a_number_that_is_not_finite_is_empty_and_half_a_line_is_left_out(run, capsys):
    with open(run / "log.jsonl", "a") as log:
        log.write('{"epoch": 3, "loss": null}\n{"epoch": 3, "lo')
    *_, last = exported(run, capsys)
    assert {name: value for name, value in last.items() if value} == {"epoch": "3"}


def test_a_folder_without_a_run_or_a_log(run, capsys):
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        export_log.main(export_log.Options(run.parent))
    (run / "log.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"run has no log\.jsonl: it has not begun"):
        export_log.main(export_log.Options(run))
