"""From a dataclass of options to a running command: help, errors a person can read, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numpy
import tyro

from common import config
from common.np import to_gpu

Options = TypeVar("Options")


def run_command(main: Callable[[Options], None], options: type[Options]) -> None:
    """Parse the command line into ``options`` and call ``main`` with it.

    What a user can cause ends as one line on stderr and exit code 1; an unknown option as tyro's
    message and exit code 2.
    """
    _run(main, tyro.cli(options, prog=_program()))


def run_subcommands(commands: dict[str, tuple[Callable[[Any], None], type]]) -> None:
    """The same for a script of several commands: a main and its options under each name."""
    mains = {options: main for main, options in commands.values()}
    parsed = tyro.extras.subcommand_cli_from_dict(
        {name: options for name, (_, options) in commands.items()}, prog=_program()
    )
    _run(mains[type(parsed)], parsed)


def _program() -> str | None:
    spec = sys.modules["__main__"].__spec__
    return None if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _run(main: Callable[[Any], None], parsed: Any) -> None:
    try:
        if getattr(parsed, "gpu", False):
            config.GPU = True
        if config.GPU:
            to_gpu(numpy.zeros(1))  # say now what is missing, not after the corpus is read
        main(parsed)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
