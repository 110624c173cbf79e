"""What ``--help`` of every command says: groups, sentences wrapped once, defaults as typed."""

import importlib
import io
import re
import shlex
import sys
import textwrap
from contextlib import redirect_stdout
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import pytest
import tyro

from train import awd_rnnlm, better_rnnlm, compare, last_word, rnnlm, seq2seq, simple_rnnlm
from train.__main__ import commands
from train.benchmark import gpu, perplexity, scaling, speed
from train.run.command_line import groups_of, parse, parse_subcommand
from train.torch_weights import ExportOptions, ImportOptions

ALL = {
    name: importlib.import_module(f"train.{name}").Options
    for name in commands()
    if name not in ("benchmark", "torch_weights")
}
ALL |= {"export": ExportOptions, "import": ImportOptions}
ALL |= {module.__name__: module.Options for module in (gpu, perplexity, scaling, speed)}
LANGUAGE_MODELS = (rnnlm, simple_rnnlm, better_rnnlm, awd_rnnlm)
HAPPENS_INSTEAD = re.compile(r"[Bb]y default|if not|if neither|does not name|empty begins")


def read(options, monkeypatch, *arguments, defaults=None):
    """The options that the command line names."""
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    return parse(options, "python -m train.script", defaults)


def helped(options, monkeypatch, columns=80, defaults=None):
    """The lines of the help at a width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(printed, encoding="utf-8", write_through=True)):
        with pytest.raises(SystemExit) as ended:
            read(options, monkeypatch, "--help", defaults=defaults)
        assert ended.value.code == 0
        return printed.getvalue().decode().splitlines()


def boxes(lines):
    """What stands in each box, by its title."""
    found = {}
    for line in lines:
        if line.startswith("╭─ "):
            inside = found.setdefault(line.strip("╭╮─ "), [])
        elif line.startswith("│ "):
            inside.append(line[2:-2].rstrip())
    return found


def entries(inside):
    """The lines of each option of a box, by what begins the first: the flag, or the metavar."""
    found = {}
    for line in inside:
        if not line.startswith(" "):
            lines = found.setdefault(line.split()[0].strip("[],"), [])
        lines.append(line)
    return found


def beside(lines):
    """What stands beside a flag or below it: the column, and the text of each line."""
    invocation, first = re.fullmatch(r"(\S.*?)(?:  +(.*))?", lines[0]).groups()
    if first is None:
        column, lines = len(lines[1]) - len(lines[1].lstrip()), lines[1:]
    else:
        column = lines[0].index(first, len(invocation))
    return column, [line[column:] for line in lines]


def name_of(first):
    return first.removeprefix("--").replace("-", "_").lower()


def options_of(options, monkeypatch, columns=80, defaults=None):
    """The lines beside each option, by its name, with the title of its box."""
    lines = helped(options, monkeypatch, columns, defaults)
    return {
        name_of(first): (title, *beside(of_option))
        for title, inside in boxes(lines).items()
        for first, of_option in entries(inside).items()
        if first != "-h"
    }


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ALL)
def test_every_option_has_a_sentence_that_is_wrapped_once(name, columns, monkeypatch):
    found = options_of(ALL[name], monkeypatch, columns)
    assert sorted(found) == sorted(field.name for field in fields(ALL[name]))
    for _, column, texts in found.values():
        text = " ".join(texts).strip()
        assert len(text.split()) >= 3
        width = columns - 4 - column
        assert texts == textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("name", ALL)
def test_no_line_is_broken_by_the_terminal(name, columns, monkeypatch):
    lines = helped(ALL[name], monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    end = next(k for k, line in enumerate(lines) if line.startswith("╭"))
    about = " ".join(line.strip() for line in lines[:end]).split()
    said = ALL[name].__doc__.split()
    assert about[-len(said) :] == said


@pytest.mark.parametrize("name", ALL)
def test_an_option_without_a_default_says_what_happens_instead(name, monkeypatch):
    found = options_of(ALL[name], monkeypatch)
    for field in fields(ALL[name]):
        text = " ".join(found[field.name][2])
        assert "None" not in text
        if field.default is None or field.default in ("", ()):
            assert HAPPENS_INSTEAD.search(text), f"--{field.name}: {text}"
            assert "(default" not in text
        elif field.default is not MISSING:
            assert "(default: " in text


@pytest.mark.parametrize("name", [name for name in ALL if hasattr(ALL[name], "GROUPS")])
def test_each_option_stands_in_the_one_group_that_names_it(name, monkeypatch):
    groups = groups_of(ALL[name])
    listed = [option for names in groups.values() for option in names]
    assert sorted(listed) == sorted(field.name for field in fields(ALL[name]))
    found = options_of(ALL[name], monkeypatch)
    for group, names in groups.items():
        for option in names:
            assert found[option][0] in (f"{group} options", "positional arguments")


@pytest.mark.parametrize("module", LANGUAGE_MODELS)
def test_a_language_model_has_four_groups_in_this_order(module, monkeypatch):
    lines = helped(module.Options, monkeypatch)
    titles = [f"{group} options" for group in ("corpus", "model", "training", "run")]
    assert list(boxes(lines)) == ["options", *titles]
    found = options_of(module.Options, monkeypatch)
    expected = {"corpus": "corpus", "hidden_size": "model", "lr": "training", "seed": "run"}
    assert {name: found[name][0] for name in expected} == {
        name: f"{group} options" for name, group in expected.items()
    }


def test_an_option_that_no_group_names_stands_where_the_dots_are():
    assert groups_of(better_rnnlm.Options)["model"] == [
        *("wordvec_size", "hidden_size", "sparse", "cell", "output", "cutoffs"),
        *("dropout", "num_layers", "tied"),
    ]
    awd = groups_of(awd_rnnlm.Options)
    assert awd["run"][0] == "preset" and "whole_epochs" in awd["training"]
    assert groups_of(last_word.Options) == {}


@pytest.mark.parametrize("groups", [{"a": "x"}, {"a": "x y", "b": "x"}, {"a": "x y z"}])
def test_groups_that_do_not_name_each_option_once_are_refused(groups):
    @dataclass
    class Wrong:
        GROUPS: ClassVar[dict[str, str]] = groups
        x: int = 1
        y: int = 2

    with pytest.raises(TypeError, match=r"expected GROUPS to have each of \['x', 'y'\] once"):
        groups_of(Wrong)


@dataclass(frozen=True)
class Kinds:
    """One option of each kind."""

    names: tuple[str, ...] = ("i like", "milk")
    """The names."""
    pair: tuple[float, float] = (50.0, 0.5)
    """The pair."""
    rate: float = 20.0
    """The rate."""
    small: float = 1.2e-6
    """The small one."""
    flag: bool = True
    """The flag."""
    path: Path | None = None
    """The path; by default none.

    It may lie anywhere.
    """


def test_defaults_stand_there_as_one_types_them(monkeypatch):
    inside = boxes(helped(Kinds, monkeypatch, 100))["options"]
    typed = {
        "--names TEXT ...": "The names. (default: 'i like' milk)",
        "--pair FLOAT FLOAT": "The pair. (default: 50 0.5)",
        "--rate FLOAT": "The rate. (default: 20)",
        "--small FLOAT": "The small one. (default: 1.2e-06)",
        "--path PATH": "The path; by default none. It may lie anywhere.",
        "--flag, --no-flag": "The flag. (default: on)",
    }
    text = " ".join(" ".join(inside).split())
    for invocation, said in typed.items():
        assert f"{invocation} {said}" in text
    shown = dict(re.findall(r"(--\w+) [^(-]*\(default: ([^)]*)\)", text))
    flags = ("--names", "--pair", "--rate", "--small")
    again = [part for flag in flags for part in (flag, *shlex.split(shown[flag]))]
    assert read(Kinds, monkeypatch, *again) == Kinds()


def test_options_of_a_run_are_shown_as_the_defaults(monkeypatch):
    saved = replace(seq2seq.Options(), model=("plain", "attention"), epochs=3)
    found = options_of(seq2seq.Options, monkeypatch, 120, saved)
    assert "(default: plain attention)" in " ".join(found["model"][2])
    assert "(default: 3)" in " ".join(found["epochs"][2])
    lines = helped(seq2seq.Options, monkeypatch, 120)
    assert any("--model {plain,peeky,attention} ..." in line for line in lines)


def test_groups_change_no_name_and_no_value(monkeypatch):
    arguments = ["--corpus", "a.txt", "--lr", "3", "--no-gpu", "--stop-after", "None", "--seed=4"]
    saved = rnnlm.Options(stop_after=2, gpu=True, epochs=9)
    got = read(rnnlm.Options, monkeypatch, *arguments, defaults=saved)
    assert got == rnnlm.Options(corpus="a.txt", lr=3.0, seed=4, epochs=9)
    assert read(rnnlm.Options, monkeypatch) == rnnlm.Options()
    got = read(compare.Options, monkeypatch, "a", "b", "--split", "valid")
    assert got == compare.Options((Path("a"), Path("b")), split="valid")


def test_an_option_of_several_numbers_stays_one(monkeypatch):
    @dataclass(frozen=True)
    class Whole:
        """A command."""

        kinds: Kinds
        """The kinds."""
        GROUPS: ClassVar[dict[str, str]] = {}

    got = read(Whole, monkeypatch, "--kinds.rate", "3", "--kinds.names", "a", "b c")
    assert got == Whole(Kinds(rate=3.0, names=("a", "b c")))


def test_a_subcommand_is_read_by_the_options_of_its_own(monkeypatch, capsys):
    kinds = {"speed": speed.Options, "models": rnnlm.Options, "perplexity": perplexity.Options}
    for arguments, expected in [
        (["models", "--hidden-size", "7"], ("models", rnnlm.Options(hidden_size=7))),
        (["speed", "--quick"], ("speed", speed.Options(quick=True))),
        (["perplexity", "a"], ("perplexity", perplexity.Options((Path("a"),)))),
    ]:
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        assert parse_subcommand(kinds, "python -m train.script") == expected
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit):
        parse_subcommand(kinds, "python -m train.script")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("about ten minutes" in line for line in lines)


def test_what_has_no_flag_is_called_by_its_name(monkeypatch):
    @dataclass
    class Required:
        """A command."""

        file: tyro.conf.Positional[Path]
        """The file to read, which has to be there."""

    lines = helped(Required, monkeypatch)
    assert lines[0] == "usage: python -m train.script [-h] FILE"
    (line,) = boxes(lines)["positional arguments"]
    assert re.fullmatch(r"FILE +The file to read, which has to be there\. \(required\)", line)
