"""The README says what the measured runs say."""

import re
from pathlib import Path

import pytest

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


CODE = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
)


def test_there_is_code_to_try():
    assert len(CODE) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.partition("\n")[0])
def test_what_a_reader_copies_works(code):
    exec(compile(code, "README.md", "exec"), {})
