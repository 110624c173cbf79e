"""A command line made of a dataclass of options: flags in groups, and help that a person reads.

tyro reads the flags and lays out the help. Here each flag gets what stands beside it: the sentence
below its field, and its default as one would type it. ``GROUPS`` of a dataclass says which options
stand together; ``...`` are those that no group names.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from docstring_parser import parse_from_object

__all__ = ["groups_of", "parse", "parse_subcommand"]

Options = TypeVar("Options")

ANSI = re.compile(r"\033\[[\d;]*m")
EMPTY = re.compile("│ *│")
REST = "..."


def parse(options: type[Options], program: str | None, defaults: Options | None) -> Options:
    """The options that the command line names.

    Args:
        options: a dataclass, which may have ``GROUPS``.
        program: how the command is called.
        defaults: what takes the place of the defaults; None for those of the dataclass.
    """
    with redirect_stdout(_WrappedLines(sys.stdout)):
        return _flat(options, tyro.cli(_command_line(options, defaults), prog=program))


def parse_subcommand(commands: Mapping[str, type], program: str | None) -> tuple[str, Any]:
    """The name of the command that the command line names first, and its options.

    Args:
        commands: a dataclass for each.
        program: how the script is called.
    """
    made = {name: _command_line(options, None) for name, options in commands.items()}
    with redirect_stdout(_WrappedLines(sys.stdout)):
        parsed = tyro.extras.subcommand_cli_from_dict({**made}, prog=program)
    (name,) = (name for name, options in made.items() if isinstance(parsed, options))
    return name, _flat(commands[name], parsed)


def groups_of(options: type) -> dict[str, list[str]]:
    """The names of the options by group; empty where a dataclass says nothing of groups.

    Raises:
        TypeError: where a group names an option that is not there, or two name the same.
    """
    names = [each.name for each in fields(options)]
    groups = {group: listed.split() for group, listed in getattr(options, "GROUPS", {}).items()}
    named = [name for listed in groups.values() for name in listed if name != REST]
    rest = [name for name in names if name not in named]
    for listed in groups.values():
        if REST in listed:
            at = listed.index(REST)
            listed[at : at + 1], rest = rest, []
    shown = sorted(name for listed in groups.values() for name in listed)
    if groups and shown != sorted(names):
        raise TypeError(
            f"{options.__module__}.{options.__qualname__}: expected GROUPS to have each of "
            f"{sorted(names)} once, got {shown}"
        )
    return groups


def _command_line(options: type, defaults: Any) -> type:
    """A dataclass that tyro reads: with a field for each group, or without groups for each flag."""
    kinds, about = get_type_hints(options, include_extras=True), _sentences(options)
    flags = {
        each.name: _flag(each, kinds[each.name], about.get(each.name, ""), defaults)
        for each in fields(options)
    }
    groups = groups_of(options)
    if groups:
        shown = [
            (group, _group(group, [flags[name] for name in listed]))
            for group, listed in groups.items()
        ]
        made = make_dataclass(options.__name__, shown, kw_only=True)
    else:
        made = make_dataclass(options.__name__, flags.values(), kw_only=True)
    paragraphs = (options.__doc__ or "").split("\n\n")
    made.__doc__ = "\n\n".join(" ".join(text.split()) for text in paragraphs)
    return made


def _group(name: str, flags: list[tuple[str, Any, Any]]) -> Any:
    """The type of a field that holds the flags of a group; no name of a flag begins with it."""
    group = make_dataclass(name, flags, kw_only=True)
    return Annotated[tyro.conf.OmitArgPrefixes[group], tyro.conf.arg(help="")]  # type: ignore


def _flag(option: Field, kind: Any, sentence: str, defaults: Any) -> tuple[str, Any, Any]:
    """Name, type with what the help says of it, and default of one option."""
    default = option.default if defaults is None else getattr(defaults, option.name)
    is_required = default is MISSING
    metavar: str | None = None
    if tyro.conf.Positional in get_args(kind):
        metavar = option.name.upper() + f" {REST}" * (get_origin(get_args(kind)[0]) is tuple)
        metavar = metavar if is_required else f"[{metavar}]"
    elif kind is not bool:
        metavar = _metavar(kind)
    shown = tyro.conf.arg(
        help=sentence,
        metavar=metavar,
        help_behavior_hint="" if is_required else _default_as_typed(default),
    )
    given = field() if is_required else field(default=default)
    return option.name, Annotated[kind, shown], given


def _metavar(kind: Any) -> str:
    """What is typed after the flag: INT, {adam,sgd}, PATH ..., FLOAT FLOAT."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return "|".join(_metavar(part) for part in parts if part is not NoneType)
    if get_origin(kind) is Literal:
        return f"{{{','.join(parts)}}}"
    if get_origin(kind) is tuple:
        return " ".join(REST if part is Ellipsis else _metavar(part) for part in parts)
    return "TEXT" if kind is str else kind.__name__.upper()


def _default_as_typed(value: Any) -> str:
    """The default in brackets; nothing where the sentence has to say what happens without it."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return f"(default: {'on' if value else 'off'})"
    if isinstance(value, tuple):
        return f"(default: {' '.join(map(_typed, value))})"
    return f"(default: {_typed(value)})"


def _typed(value: Any) -> str:
    text = str(value)
    return shlex.quote(text.removesuffix(".0") if isinstance(value, float) else text)


def _sentences(options: type) -> dict[str, str]:
    """What stands below each field of a dataclass or of those that it is made of, in one line."""
    found: dict[str, str] = {}
    for each in options.__mro__:
        if is_dataclass(each):
            for said in parse_from_object(each).params:
                found.setdefault(said.arg_name, " ".join((said.description or "").split()))
    return found


def _flat(options: type[Options], parsed: Any) -> Options:
    """The options of which ``parsed`` holds the values, by group or not."""
    parts = [vars(getattr(parsed, group)) for group in groups_of(options)] or [vars(parsed)]
    return options(**{name: value for part in parts for name, value in part.items()})


class _WrappedLines(io.TextIOBase):
    """Standard output on which a line that the terminal would break in a word ends before it.

    tyro leaves the usage and what a command says about itself in one line each, and an empty line
    below a sentence that fills its last one.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left_out = False  # whether the line that ends now was an empty one in a box

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream: tyro chooses the boxes by it."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream.isatty()

    def flush(self) -> None:
        """Flush."""
        self._stream.flush()

    def write(self, text: str) -> int:
        """Write whole lines, or what ends one."""
        was_left_out, self._left_out = self._left_out, bool(EMPTY.fullmatch(ANSI.sub("", text)))
        if not (self._left_out or was_left_out):
            columns = shutil.get_terminal_size().columns
            self._stream.write("\n".join(_wrapped(line, columns) for line in text.split("\n")))
        return len(text)


def _wrapped(line: str, columns: int) -> str:
    shown = ANSI.sub("", line)
    if len(shown) <= columns:
        return line
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * len("usage: ") if shown.startswith("usage: ") else "",
        break_long_words=False,
        break_on_hyphens=False,
    )
