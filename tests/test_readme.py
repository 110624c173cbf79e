"""The README says what the measured runs say."""

from pathlib import Path

import pytest

from train.benchmark.perplexity import markdown
from train.benchmark.run_records import read_record

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "results").glob("*.json"))


def test_there_are_measured_runs():
    assert RECORDS


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_every_measured_run_stands_in_the_readme(record):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, *rows = markdown([read_record(record)]).splitlines()
    for row in rows:
        assert row in readme, f"python -m train.benchmark perplexity --readme prints {row}"


def test_every_picture_of_the_readme_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in readme.split("](docs/")[1:]]
    assert pictures
    for picture in pictures:
        assert (ROOT / "docs" / picture).is_file()
