"""The README says what the measured runs say."""

from pathlib import Path

from train.benchmark.perplexity import markdown
from train.benchmark.run_records import read_record

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "results").glob("*.json"))


def test_there_are_measured_runs():
    assert RECORDS


def test_the_measured_runs_stand_in_the_readme_and_no_others():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = markdown([read_record(path) for path in RECORDS])
    assert f"\n\n{table}\n\n" in readme, f"train.benchmark perplexity --readme prints\n{table}"


def test_every_picture_of_the_readme_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in readme.split("](docs/")[1:]]
    assert pictures
    for picture in pictures:
        assert (ROOT / "docs" / picture).is_file()
