"""What the files in C and CUDA C say about themselves."""

import re
from pathlib import Path

import pytest

from common import kernels
from common.kernels import build

FOLDER = Path(kernels.__file__).parent
FOLDERS = [build.SOURCES, FOLDER / "cuda"]
SOURCES = sorted(
    p for folder in FOLDERS for p in folder.iterdir() if p.suffix in (".c", ".cu", ".h")
)


@pytest.mark.parametrize("source", [p for p in SOURCES if p.suffix != ".h"], ids=lambda p: p.name)
def test_each_kernel_has_the_naive_loop_that_it_stands_for_in_its_comment(source):
    first_comment = source.read_text(encoding="utf-8").partition("*/")[0]
    assert re.search(r"naive (\w+ )?(loop|form)", " ".join(first_comment.split()))


def test_the_page_on_the_kernels_lists_every_file():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(((?:c|cuda)/[\w.]+)\)", page))
    assert {f"{path.parent.name}/{path.name}" for path in SOURCES} == listed
