"""Options of an earlier run, and which of them may change when it goes on."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from train.run.folder import CALL_OPTIONS, RunFolder

__all__ = [
    "command_to_resume",
    "options_to_resume",
    "read_options",
    "saved_options",
]

Options = TypeVar("Options")

UNIONS = (Union, UnionType)
RENAMED = {"dropout_ratio": "dropout"}  # an option's name in older runs, and its name today


def _with_current_names(saved: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The options of a config under their present names; ``known`` are those of the script."""
    current = dict(saved)
    for before, today in RENAMED.items():
        if before in current and today in known and today not in current:
            current[today] = current.pop(before)
    return current


def read_options(options: type[Options], config: dict, config_file: Path) -> Options:
    """The options that a config holds; one that it does not know has its default.

    Raises:
        ValueError: for an option that the script does not have, or a value of another type.
    """
    hints = get_type_hints(options)
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]
    hints, values = {name: hints[name] for name in names}, {}
    for name, value in _with_current_names(config["options"], names).items():
        if name not in hints:
            raise ValueError(f"{config_file}: there is no option {name!r}")
        kinds = get_args(hints[name]) if get_origin(hints[name]) in UNIONS else (hints[name],)
        fitting = [kind for kind in kinds if _fits(value, kind)]
        if not fitting:
            expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
            raise ValueError(f"{config_file}: expected {name} to be {expected}, got {value!r}")
        values[name] = Path(value) if fitting == [Path] else value
        if isinstance(value, list):
            values[name] = tuple(value)
    return options(**values)


def _fits(value: Any, kind: Any) -> bool:
    """Whether JSON's ``value`` can stand for an option of type ``kind``."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return isinstance(value, list) and all(_fits(part, inner) for part in value)
    if kind in (int, float):
        numbers = int if kind is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool)
    return isinstance(value, str if kind is Path else kind)


def saved_options(script: str, options: type[Options], path: Path) -> Options:
    """The options of the run in ``path``, with ``resume`` set: what goes on with it.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where it is a run of another script, or its config is damaged.
    """
    run, config = RunFolder.open(path)
    if config["script"] != script:
        raise ValueError(
            f"{path} is a run of {config['script']}: "
            f"{command_to_resume(config['script'], path)} goes on with it"
        )
    return replace(read_options(options, config, run.config_file), resume=path)  # type: ignore[type-var]


def options_to_resume(script: str, options: Any, changeable: Sequence[str] | None = None) -> Any:
    """The options of the run that ``options.resume`` names, with the changes.

    Args:
        script: whose run it must be.
        options: those of the run, as ``saved_options`` gives them, or changed.
        changeable: names of the options that may differ; None for what the options say themselves.

    Raises:
        FileNotFoundError: where there is no run.
        ValueError: where an option differs that cannot change any more; names each.
    """
    if changeable is None:
        changeable = options.changeable()
    saved = saved_options(script, type(options), options.resume)
    conflicts = []
    for field in fields(options):
        before, now = getattr(saved, field.name), getattr(options, field.name)
        if field.name not in (*changeable, *CALL_OPTIONS) and now != before:
            conflicts.append(f"--{field.name.replace('_', '-')} {before}, got {now}")
    if options.out is not None and options.out not in (saved.out, options.resume):
        conflicts.append(f"--out {options.resume}, got {options.out}")
    if conflicts:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in changeable)
        raise ValueError(
            f"--resume {options.resume}: the run was made with {'; '.join(conflicts)}; a run goes "
            f"on with its own options{', only ' + names + ' may change' if names else ''}"
        )
    return replace(options, out=saved.out)


def command_to_resume(script: str, path: Path) -> str:
    """What to type to go on with the run in ``path``."""
    return f"python -m train.{script} --resume {shlex.quote(str(path))}"
