"""The guide says what is so: its code runs, shows what it prints, and is quoted as it stands."""

import importlib
import pkgutil
import re
import shlex

import pytest
import tyro

import common
import datasets
import models
from docs.tools.notebooks import LESSONS, NOTEBOOKS, notebook
from docs.tools.pages import blocks
from tests.guide import ROOT, Reader, commands, difference, is_quoted, shown_after
from train.__main__ import commands as all_commands

DOCS = ROOT / "docs"
PAGES = {str(p.relative_to(DOCS)): p.read_text(encoding="utf-8") for p in DOCS.rglob("*.md")}
# What nothing outside calls: how the work is done on a processor, a device, several processes.
INNER = ("common.kernels", "common.nccl", "common.np", "common.plotting")


def page_params():
    """Every page with code; one that starts programs is slow."""
    for name, text in sorted(PAGES.items()):
        kinds = {block.kind for block in blocks(text)}
        if kinds & {"python", "console"}:
            marks = [pytest.mark.slow] if "console" in kinds else []
            yield pytest.param(text, id=name, marks=marks)


@pytest.mark.parametrize("page", list(page_params()))
def test_the_code_of_a_page_runs_and_prints_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    reader, found = Reader(tmp_path), blocks(page)
    for k, block in enumerate(found):
        printed = reader.follow(block)
        differs = difference(shown_after(found, k), printed)
        assert not differs, f"line {block.line}:\n{differs}"


def test_a_page_that_shows_something_else_is_noticed(tmp_path):
    block, output = blocks("```python\nprint(1.25)\n```\n\n```output\n1.2...\n```\n")
    printed = Reader(tmp_path).follow(block)
    assert shown_after([block, output], 0) == "1.2...\n"
    assert not difference(output.text, printed)
    assert "1.25" in difference("1.3...\n", printed)
    assert not difference("a\n...\nb\n", "a\nb\n")
    assert not difference("a\n...\nb\n", "a\n1\n2\nb\n")
    assert difference("a\n...\nb\n", "a\n1\n")
    assert is_quoted("if a:\n    b", "x\n    if a:\n        b\n")
    assert not is_quoted("if a:\n    b", "x\n    if a:\n    b\n")


def command_params():
    """Every ``python -m train.NAME ...`` of the pages, in blocks that are run or not."""
    for name, text in sorted(PAGES.items()):
        for block in blocks(text):
            lines = block.text.replace("\\\n", "").splitlines() if block.kind == "bash" else []
            for line in [*lines, *(commands(block) if block.kind == "console" else [])]:
                words = shlex.split(line, comments=True)
                for at, word in enumerate(words):
                    if word.startswith("train.") and words[at - 1] == "-m":
                        yield pytest.param(word, words[at + 1 :], id=f"{name}-{' '.join(words)}")


@pytest.mark.parametrize(("module", "arguments"), list(command_params()))
def test_a_command_of_the_guide_has_the_options_that_are_named(module, arguments):
    assert module.partition(".")[2] in all_commands()
    options = getattr(importlib.import_module(module), "Options", None)
    ends = [k for k, argument in enumerate(arguments) if re.search(r"[|>;&]", argument)]
    arguments = arguments[: ends[0]] if ends else arguments
    if options is not None:
        tyro.cli(options, args=arguments)


@pytest.mark.parametrize("lesson", sorted(LESSONS.glob("*.md")), ids=lambda path: path.stem)
def test_a_notebook_is_its_lesson(lesson):
    kept = (NOTEBOOKS / f"{lesson.stem}.ipynb").read_text(encoding="utf-8")
    made = notebook(lesson.read_text(encoding="utf-8"))
    assert kept == made, "run python -m docs.tools.notebooks"
    assert '"cell_type": "code"' in made


def test_there_are_two_notebooks_and_no_others():
    assert len(list(LESSONS.glob("*.md"))) >= 2
    assert {p.stem for p in NOTEBOOKS.iterdir()} == {p.stem for p in LESSONS.glob("*.md")}


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert {name for name in PAGES if f" {name}\n" not in navigation} == set()


def test_every_public_module_is_in_the_reference():
    shown = {name for text in PAGES.values() for name in re.findall(r"^::: (\S+)$", text, re.M)}
    public = set()
    for package in (common, datasets, models):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.ispkg and not module.name.startswith(INNER):
                public.add(module.name)
    assert public - shown == set(), "a line ::: NAME for each is missing in docs/reference"


def test_every_command_is_in_the_reference():
    shown = PAGES["reference/commands.md"]
    assert {name for name in all_commands() if f"`train.{name}`" not in shown} == set()


def test_pictures_are_there():
    for name, text in PAGES.items():
        for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert ((DOCS / name).parent / picture).is_file(), f"{name}: {picture}"
