"""From a dataclass of options to a running command: help, errors a person can read, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy
import tyro

from common import config
from common.np import to_gpu
from train.run.saved_options import saved_options
from train.run.signals import Stopped

Options = TypeVar("Options")


def run_command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Parse the command line into ``options`` and call ``main`` with it.

    What a user can cause ends as one line on stderr and exit code 1; an unknown option as tyro's
    message and exit code 2; Ctrl-C and SIGTERM as 130 and 143. With ``--resume RUN`` the options of
    that run take the place of the defaults, with ``--preset NAME`` those in ``options.PRESETS``.
    """
    with _reported_errors():
        defaults = _defaults(options)
    _run(main, tyro.cli(options, prog=_program(), default=defaults))


def run_subcommands(commands: dict[str, tuple[Callable[[Any], None], type]]) -> None:
    """The same for a script of several commands: a main and its options under each name."""
    mains = {options: main for main, options in commands.values()}
    parsed = tyro.extras.subcommand_cli_from_dict(
        {name: options for name, (_, options) in commands.items()}, prog=_program()
    )
    _run(mains[type(parsed)], parsed)


def _defaults(options: type[Options]) -> Options | None:
    """Those of the run that ``--resume`` names, or of the preset; None for the class's own."""
    names = {field.name for field in fields(options)}  # type: ignore[arg-type]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--preset")
    try:
        given = parser.parse_known_args()[0]
    except argparse.ArgumentError:  # nothing named: tyro explains
        return None
    if "resume" in names and given.resume is not None:
        return saved_options((_program() or "").rpartition(".")[2], options, given.resume)
    presets: dict[str, dict[str, Any]] = getattr(options, "PRESETS", {})
    if given.preset in presets:
        return replace(options(), preset=given.preset, **presets[given.preset])  # type: ignore[type-var]
    return None


def _program() -> str | None:
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


@contextmanager
def _reported_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except Stopped as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(main: Callable[[Any], None], parsed: Any) -> None:
    with _reported_errors():
        if getattr(parsed, "gpu", False):
            config.GPU = True
        if config.GPU:
            to_gpu(numpy.zeros(1))  # say now what is missing, not after the corpus is read
        main(parsed)
